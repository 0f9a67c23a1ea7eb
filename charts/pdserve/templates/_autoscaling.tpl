{{/* What an autoscaler scales. Call: a pool. */}}
{{- define "pdserve.scaleTarget" -}}
{{- if eq (int .pods) 1 -}}
apiVersion: apps/v1
kind: Deployment
{{- else -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
{{- end }}
name: {{ .workload }}
{{- end }}

{{/* A model takes long to load: many pods may come at once, and go one by one. Call: the values. */}}
{{- define "pdserve.scaleBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end }}

{{/*
How many pods a workload shall have. An autoscaler's choice stays as it is: were it left out of the
manifest, Kubernetes would make it 1. Call: root, target (what is scaled), replicas, autoscaling.
*/}}
{{- define "pdserve.replicas" -}}
{{- $replicas := .replicas -}}
{{- if .autoscaling.enabled -}}
{{- $live := lookup .target.apiVersion .target.kind .root.Release.Namespace .target.name -}}
{{- with $live.spec -}}
{{- if hasKey . "replicas" -}}{{- $replicas = .replicas -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- int $replicas -}}
{{- end }}
