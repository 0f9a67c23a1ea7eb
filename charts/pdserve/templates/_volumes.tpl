{{/*
Volumes of every pod: what may be written (the root file system may not), model files, certificates.
Call: root, secrets (a Secret's name by that of its volume, which is mounted at /etc/pdserve/VOLUME).
*/}}
{{- define "pdserve.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  emptyDir:
    sizeLimit: {{ .root.Values.modelFiles.hub.cacheSize }}
{{- with .root.Values.modelFiles.hub.cacheClaim }}
- name: hub
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- with .root.Values.modelFiles.claim }}
- name: model
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- range $name, $secret := .secrets }}
- name: {{ $name }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* Where they are mounted. Call: as for the volumes. */}}
{{- define "pdserve.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /var/cache/pdserve}
{{- if .root.Values.modelFiles.hub.cacheClaim }}
- {name: hub, mountPath: /var/cache/pdserve/huggingface}
{{- end }}
{{- if .root.Values.modelFiles.claim }}
- {name: model, mountPath: {{ .root.Values.modelFiles.mountPath }}, readOnly: true}
{{- end }}
{{- range $name, $secret := .secrets }}
- {name: {{ $name }}, mountPath: /etc/pdserve/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Environment of every container: its own name, and the token for the hub. Call: root. */}}
{{- define "pdserve.environment" -}}
- name: PDSERVE_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- with .Values.modelFiles.hub }}
{{- if .tokenSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .tokenSecret }}, key: {{ .tokenKey }}}}
{{- end }}
{{- if .endpoint }}
- name: HF_ENDPOINT
  value: {{ .endpoint | quote }}
{{- end }}
{{- end }}
{{- end }}
