{{/* What all pods have in common. Call: root, spec (the router's values or a pool), component. */}}
{{- define "pdserve.podSettings" -}}
serviceAccountName: {{ include "pdserve.serviceAccount" . }}
# A Service called pdserve would otherwise set PDSERVE_PORT, which is an option.
enableServiceLinks: false
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .spec.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .spec.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The hook that keeps a pod as it is while others learn that it ends. Call: seconds. */}}
{{- define "pdserve.preStop" -}}
{{- if . -}}
lifecycle:
  preStop:
    exec: {command: [sleep, {{ . | quote }}]}
{{- end }}
{{- end }}
