{{/*
Probes of a container. Kubernetes' gRPC probes speak no TLS: with it, the metrics port is asked, which
is plain HTTP. Call
  tls      whether the gRPC port speaks TLS
  seconds  how long the start may take
  started  what ends the start: "healthy", or "alive" for a process that others can keep unhealthy
*/}}
{{- define "pdserve.probes" -}}
startupProbe:
  {{- include (printf "pdserve.%s" .started) . | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: {{ div (add .seconds 4) 5 }}
readinessProbe:
  {{- include "pdserve.healthy" . | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  {{- include "pdserve.alive" . | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* It can serve. */}}
{{- define "pdserve.healthy" -}}
{{- if .tls -}}
httpGet: {path: /health, port: metrics}
{{- else -}}
grpc: {port: {{ .root.Values.ports.grpc }}}
{{- end -}}
{{- end }}

{{/* It answers at all: an instance that drains or waits for others must not be restarted. */}}
{{- define "pdserve.alive" -}}
{{- if .tls -}}
httpGet: {path: /metrics, port: metrics}
{{- else -}}
grpc: {port: {{ .root.Values.ports.grpc }}, service: liveness}
{{- end -}}
{{- end }}
