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
