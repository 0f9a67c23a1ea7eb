{{/*
Options as arguments, --name=value, in the order of their names. Call: a map of options.
Helm reads every number as a float and would write 8589934592 as 8.589934592e+09.
*/}}
{{- define "pdserve.options" -}}
{{- range $name, $value := . }}
{{- $text := toString $value }}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
{{- $text = printf "%.0f" $value }}
{{- end }}
- {{ printf "--%s=%s" (replace "_" "-" $name) $text | quote }}
{{- end }}
{{- end }}

{{/* Options that say which files are for TLS between processes; none without it. Call: root. */}}
{{- define "pdserve.linkOptions" -}}
{{- $options := dict -}}
{{- with .Values.tls.links -}}
{{- if .secret -}}
{{- $folder := include "pdserve.linkFolder" $ -}}
{{- $_ := set $options "tls_cert" (printf "%s/tls.crt" $folder) -}}
{{- $_ := set $options "tls_key" (printf "%s/tls.key" $folder) -}}
{{- $_ := set $options "tls_ca" (printf "%s/ca.crt" $folder) -}}
{{- $_ := set $options "tls_server_name" .serverName -}}
{{- end -}}
{{- end -}}
{{- toJson $options -}}
{{- end }}

{{/* The same for TLS between clients and the router. Call: root. */}}
{{- define "pdserve.doorOptions" -}}
{{- $options := dict -}}
{{- with .Values.tls.door -}}
{{- if .secret -}}
{{- $folder := include "pdserve.doorFolder" $ -}}
{{- $_ := set $options "tls_door_cert" (printf "%s/tls.crt" $folder) -}}
{{- $_ := set $options "tls_door_key" (printf "%s/tls.key" $folder) -}}
{{- if .clientCertificates -}}
{{- $_ := set $options "tls_door_ca" (printf "%s/ca.crt" $folder) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $options -}}
{{- end }}

{{/* Where Secrets are mounted, see the volumes. */}}
{{- define "pdserve.linkFolder" -}}/etc/pdserve/link-tls{{- end }}
{{- define "pdserve.doorFolder" -}}/etc/pdserve/door-tls{{- end }}
{{- define "pdserve.keysFolder" -}}/etc/pdserve/api-keys{{- end }}

{{/*
How long a pod may take to end: what its options grant running requests, after the preStop hook,
and some time to close. Call: options, preStopSeconds.
*/}}
{{- define "pdserve.gracePeriod" -}}
{{- $drain := 30 -}}{{/* drain_grace_s by default */}}
{{- if hasKey .options "drain_grace_s" -}}
{{- $drain = ceil .options.drain_grace_s -}}
{{- end -}}
{{- add (int $drain) (int .preStopSeconds) 15 -}}
{{- end }}
