{{/*
Where the pods of a pool go. The plan's nodes are a node affinity. Pools of one group attract each
other: the nearer a place that they can share, the more it weighs. Call: root, pool.
*/}}
{{- define "pdserve.affinity" -}}
{{- $pool := .pool -}}
{{- with $pool.placement.nodes }}
nodeAffinity:
  {{- if $pool.placement.required }}
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - {key: kubernetes.io/hostname, operator: In, values: {{ toJson . }}}
  {{- else }}
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      preference:
        matchExpressions:
          - {key: kubernetes.io/hostname, operator: In, values: {{ toJson . }}}
  {{- end }}
{{- end }}
{{- if and (include "pdserve.grouped" $pool) (or $pool.grouping.require $pool.grouping.prefer) }}
podAffinity:
  {{- with $pool.grouping.require }}
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: {{ . }}
      labelSelector:
        matchLabels: {{- include "pdserve.groupSelector" $ | nindent 10 }}
  {{- end }}
  {{- with $pool.grouping.prefer }}
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- range $rank, $key := . }}
    - weight: {{ max 1 (div 100 (add $rank 1)) }}
      podAffinityTerm:
        topologyKey: {{ $key }}
        labelSelector:
          matchLabels: {{- include "pdserve.groupSelector" $ | nindent 12 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Labels of the instances that prefill and decode for each other. */}}
{{- define "pdserve.groupSelector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
pdserve.io/group: {{ .pool.group | toString | quote }}
{{- end }}

{{/* Spreads pods evenly over places. Call: constraints, selector (YAML). */}}
{{- define "pdserve.topologySpread" -}}
{{- range .constraints }}
- topologyKey: {{ .topologyKey }}
  maxSkew: {{ default 1 .maxSkew }}
  whenUnsatisfiable: {{ default "ScheduleAnyway" .whenUnsatisfiable }}
  labelSelector:
    matchLabels: {{- $.selector | nindent 6 }}
{{- end }}
{{- end }}
