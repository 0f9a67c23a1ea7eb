{{/* What all objects of a release begin with: short enough for a pool's name and a pod's behind it. */}}
{{- define "pdserve.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 28 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 28 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 28 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels that select pods; they never change. Call: root, component and, for one pool, pool. */}}
{{- define "pdserve.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
pdserve.io/pool: {{ . }}
{{- end }}
{{- end }}

{{/* Labels of an object. Call: as for the selector. */}}
{{- define "pdserve.labels" -}}
{{ include "pdserve.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of a pod: without the chart's version and pdserve's, which are no reason to replace pods. */}}
{{- define "pdserve.podLabels" -}}
{{ include "pdserve.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Name of the service account of the router or of the instances. Call: root, component. */}}
{{- define "pdserve.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccounts .component -}}
{{- if $account.create -}}
{{- default (printf "%s-%s" (include "pdserve.fullname" .root) .component) $account.name -}}
{{- else -}}
{{- default "default" $account.name -}}
{{- end -}}
{{- end }}

{{/*
The image. Without a tag it is the chart's version, for CPU or for GPUs. Call: root, gpus, and own:
what a pool says of its image. Its tag or digest takes the place of both.
*/}}
{{- define "pdserve.image" -}}
{{- $own := default dict .own -}}
{{- $image := deepCopy .root.Values.image -}}
{{- if or $own.tag $own.digest -}}
{{- $image = omit $image "tag" "digest" -}}
{{- end -}}
{{- $image = mustMergeOverwrite $image $own -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- $variant := ternary "cuda" "cpu" (gt (int .gpus) 0) -}}
{{- printf "%s:%s" $image.repository (default (printf "%s-%s" .root.Chart.AppVersion $variant) $image.tag) -}}
{{- end -}}
{{- end }}

{{/* Selects all pods of instances, workers included. Call: root. */}}
{{- define "pdserve.instancePeers" -}}
matchLabels:
  app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
  app.kubernetes.io/instance: {{ .Release.Name }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: [prefill, prefill-worker, decode, decode-worker]
{{- end }}
