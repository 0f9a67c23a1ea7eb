{{/*
Where the pods of a pool go. The plan's nodes are a node affinity, by their names: the label
kubernetes.io/hostname may say something else. Pools of one group attract each other: the nearer a
place that they can share, the more it weighs. Call: root, pool.
*/}}
{{- define "pdserve.affinity" -}}
{{- $pool := .pool -}}
{{- with $pool.placement.nodes }}
nodeAffinity:
  {{- if $pool.placement.required }}
  requiredDuringSchedulingIgnoredDuringExecution:
    # Of several terms one must hold, and a term can name one node.
    nodeSelectorTerms:
      {{- range . }}
      - matchFields: [{key: metadata.name, operator: In, values: [{{ . | quote }}]}]
      {{- end }}
  {{- else }}
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- range . }}
    - weight: 100
      preference:
        matchFields: [{key: metadata.name, operator: In, values: [{{ . | quote }}]}]
    {{- end }}
  {{- end }}
{{- end }}
{{- $required := $pool.grouping.require }}
{{- if and $pool.placement.required (eq (len $pool.placement.nodes) 1) }}
{{- $required = "" }}{{/* There is nothing to choose, and pods on the node before would forbid it. */}}
{{- end }}
{{- if and (include "pdserve.grouped" $pool) (or $required $pool.grouping.prefer) }}
podAffinity:
  {{- with $required }}
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

{{/* Labels of the instances that prefill and decode for each other. Call: root, pool. */}}
{{- define "pdserve.groupSelector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{ include "pdserve.groupLabels" .pool }}
{{- end }}

{{/*
The labels of a group. The second stands for the nodes of all its pools: planned for other nodes, it
is another group, whose pods need not join those that are still where the group was before.
Call: a pool.
*/}}
{{- define "pdserve.groupLabels" -}}
pdserve.io/group: {{ .group | toString | quote }}
pdserve.io/group-nodes: {{ .groupNodes | uniq | sortAlpha | join "," | sha256sum | trunc 10 | quote }}
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
