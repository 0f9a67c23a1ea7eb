{{/* The pod template of the router. Call: root. */}}
{{- define "pdserve.router" -}}
{{- $router := .Values.router -}}
{{- $secrets := include "pdserve.routerSecrets" . | fromJson -}}
{{- $tls := ne (include "pdserve.doorTls" .) "" -}}
metadata:
  labels:
    {{- with $router.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "pdserve.podLabels" (dict "root" . "component" "router") | nindent 4 }}
  annotations:
    # A router keeps what it knows of an instance's place: with another right it starts anew.
    pdserve.io/reads-nodes: {{ and .Values.rbac.create .Values.rbac.nodes | quote }}
    {{- with $router.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "pdserve.podSettings" (dict "root" . "spec" $router "component" "router") | nindent 2 }}
  automountServiceAccountToken: {{ eq $router.discovery "kubernetes" }}
  terminationGracePeriodSeconds: {{ include "pdserve.gracePeriod" (dict "options" $router.config "preStopSeconds" $router.preStopSeconds) }}
  {{- with $router.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "pdserve.topologySpread" (dict "constraints" $router.topologySpread "selector" (include "pdserve.selector" (dict "root" . "component" "router"))) }}
  topologySpreadConstraints: {{- . | trim | nindent 4 }}
  {{- end }}
  containers:
    - name: router
      image: {{ include "pdserve.image" (dict "root" . "gpus" 0) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - router
        {{- include "pdserve.options" (include "pdserve.routerOptions" . | fromJson) | trim | nindent 8 }}
      env:
        {{- include "pdserve.environment" . | nindent 8 }}
        {{- with $router.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: grpc, containerPort: {{ .Values.ports.grpc }}}
        - {name: http, containerPort: {{ .Values.ports.http }}}
        - {name: metrics, containerPort: {{ .Values.ports.metrics }}}
      # Without instances it is alive and not ready.
      {{- include "pdserve.probes" (dict "root" . "tls" $tls "seconds" $router.startupSeconds "started" "alive") | nindent 6 }}
      {{- with include "pdserve.preStop" $router.preStopSeconds }}
      {{- . | nindent 6 }}
      {{- end }}
      resources: {{- toYaml $router.resources | nindent 8 }}
      securityContext: {{- toYaml .Values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        {{- include "pdserve.volumeMounts" (dict "root" . "secrets" $secrets) | nindent 8 }}
        {{- with $router.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "pdserve.volumes" (dict "root" . "secrets" $secrets) | nindent 4 }}
    {{- with $router.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* All options of the router, as JSON. Call: root. */}}
{{- define "pdserve.routerOptions" -}}
{{- $values := .Values -}}
{{- $fixed := dict "model" $values.model "host" $values.listen "port" $values.ports.grpc "http_port" $values.ports.http "metrics_port" $values.ports.metrics -}}
{{- $_ := set $fixed "instances" (include "pdserve.discovery" .) -}}
{{- with $values.slo.ttft_ms -}}{{- $_ := set $fixed "slo_ttft_ms" . -}}{{- end -}}
{{- with $values.slo.tpot_ms -}}{{- $_ := set $fixed "slo_tpot_ms" . -}}{{- end -}}
{{- if $values.apiKeys.secret -}}
{{- $_ := set $fixed "api_keys" (printf "%s/%s" (include "pdserve.keysFolder" .) $values.apiKeys.key) -}}
{{- end -}}
{{- mustMergeOverwrite (deepCopy $values.router.config) $fixed (include "pdserve.linkOptions" . | fromJson) (include "pdserve.doorOptions" . | fromJson) | toJson -}}
{{- end }}

{{/* Where the router finds its instances: the option `instances`. Call: root. */}}
{{- define "pdserve.discovery" -}}
{{- if eq .Values.router.discovery "kubernetes" -}}
{{- printf "kube:%s/app.kubernetes.io/instance=%s,pdserve.io/role" .Release.Namespace .Release.Name -}}
{{- else -}}
{{- $names := list -}}
{{- range $role := list "prefill" "decode" -}}
{{- if (index $.Values $role).pools -}}
{{- $names = append $names (printf "%s=%s-%s.%s.svc:%.0f" $role (include "pdserve.fullname" $) $role $.Release.Namespace (float64 $.Values.ports.grpc)) -}}
{{- end -}}
{{- end -}}
{{- printf "dns:%s" (join "," $names) -}}
{{- end -}}
{{- end }}

{{/* Secrets that the router mounts, by name of the volume. Call: root. */}}
{{- define "pdserve.routerSecrets" -}}
{{- $secrets := dict -}}
{{- with .Values.tls.links.secret -}}{{- $_ := set $secrets "link-tls" . -}}{{- end -}}
{{- with .Values.tls.door.secret -}}{{- $_ := set $secrets "door-tls" . -}}{{- end -}}
{{- with .Values.apiKeys.secret -}}{{- $_ := set $secrets "api-keys" . -}}{{- end -}}
{{- toJson $secrets -}}
{{- end }}

{{/* Whether clients speak TLS with the router. Call: root. */}}
{{- define "pdserve.doorTls" -}}
{{- if or .Values.tls.links.secret .Values.tls.door.secret -}}true{{- end -}}
{{- end }}
