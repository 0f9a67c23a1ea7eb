{{/*
What no schema can say: values that do not go together. Each is refused with a sentence that begins
with where it stands. Call: root; renders nothing.
*/}}
{{- define "pdserve.validate" -}}
{{- $colocated := default false .Values.router.config.colocated -}}
{{- if not .Values.decode.pools -}}
{{- fail "decode.pools: is empty; without a decode instance nothing can be answered" -}}
{{- end -}}
{{- if and (not .Values.prefill.pools) (not $colocated) -}}
{{- fail "prefill.pools: is empty; give a pool, or set router.config.colocated for decode instances that do both phases" -}}
{{- end -}}
{{- if and .Values.prefill.pools $colocated -}}
{{- fail "router.config.colocated: is true, so prefill.pools must be empty: decode instances do both phases" -}}
{{- end -}}
{{- $name := "[A-Za-z0-9][A-Za-z0-9_.-]*" -}}
{{- if not (regexMatch (printf "^(smollm2-135m-instruct|/.+|%s/[A-Za-z0-9_.-]+)$" $name) .Values.model) -}}
{{- fail (printf "model: is %s; it must be the built-in name smollm2-135m-instruct, a hub id (organisation/model), or an absolute path in the image or below modelFiles.mountPath" .Values.model) -}}
{{- end -}}
{{- if has (toString .Values.disruption.maxUnavailable) (list "0" "0%") -}}
{{- fail "disruption.maxUnavailable: is 0; then no node with a pod could ever be drained" -}}
{{- end -}}
{{- with .Values.modelFiles -}}
{{- if and .claim (not (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $.Values.model)) -}}
{{- fail (printf "model: is %s; it must be a path below modelFiles.mountPath, %s, where modelFiles.claim is mounted" $.Values.model .mountPath) -}}
{{- end -}}
{{- end -}}
{{- with .Values.ports -}}
{{- if or (eq (int .http) (int .grpc)) (eq (int .http) (int .metrics)) -}}
{{- fail (printf "ports.http: is %d, like another port" (int .http)) -}}
{{- end -}}
{{- if eq (int .metrics) (int .grpc) -}}
{{- fail (printf "ports.metrics: is %d, like ports.grpc" (int .grpc)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.tls -}}
{{- if and .door.clientCertificates (not .door.secret) -}}
{{- fail "tls.door.clientCertificates: is true, but tls.door.secret names no Secret" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.monitoring (not .Values.networkPolicy.enabled) -}}
{{- fail "networkPolicy.monitoring: is set, but networkPolicy.enabled is false" -}}
{{- end -}}
{{- if and .Values.networkPolicy.clients (not .Values.networkPolicy.enabled) -}}
{{- fail "networkPolicy.clients: is set, but networkPolicy.enabled is false" -}}
{{- end -}}
{{- with .Values.router -}}
{{- include "pdserve.validateRollout" (dict "field" "router" "rollout" .rollout) -}}
{{- include "pdserve.validateAutoscaling" (dict "field" "router" "autoscaling" .autoscaling) -}}
{{- end -}}
{{- $names := dict -}}
{{- range include "pdserve.pools" . | fromJsonArray -}}
{{- if hasKey $names .name -}}
{{- fail (printf "%s.name: %s is the name of %s too" .field .name (get $names .name)) -}}
{{- end -}}
{{- $_ := set $names .name .field -}}
{{- include "pdserve.validatePool" (dict "root" $ "pool" .) -}}
{{- end -}}
{{- end }}

{{/* One pool. Call: root, pool. */}}
{{- define "pdserve.validatePool" -}}
{{- $field := .pool.field -}}
{{- $capabilities := .root.Capabilities.APIVersions -}}
{{- $supported := .root.Values.allowUnsupported -}}
{{- with .pool -}}
{{- $ranks := int (include "pdserve.ranks" .) -}}
{{- $gpus := int .gpu.count -}}
{{- if and (gt $ranks 1) (not $supported) -}}
{{- fail (printf "%s.tensorParallelism: TP × PP is %d, but the engine of this version runs instances of one GPU; allowUnsupported: true renders it all the same" $field $ranks) -}}
{{- end -}}
{{- if and (gt $gpus 0) (ne $gpus $ranks) -}}
{{- fail (printf "%s.gpu.count: is %d; an instance has TP × PP = %d GPUs" $field $gpus $ranks) -}}
{{- end -}}
{{- if and (eq $gpus 0) (gt $ranks 1) -}}
{{- fail (printf "%s.gpu.count: is 0; an instance with TP × PP = %d needs as many GPUs" $field $ranks) -}}
{{- end -}}
{{- if ne (mul (int .gpusPerPod) (int .pods)) $gpus -}}
{{- fail (printf "%s.gpu.perNode: %d GPUs cannot be shared evenly among nodes of %.0f" $field $gpus .gpu.perNode) -}}
{{- end -}}
{{- if and (gt (int .pods) 1) (not ($capabilities.Has "leaderworkerset.x-k8s.io/v1")) -}}
{{- fail (printf "%s.gpu.count: %d GPUs are more than gpu.perNode, %.0f; such an instance takes the API leaderworkerset.x-k8s.io/v1, which this cluster lacks" $field $gpus .gpu.perNode) -}}
{{- end -}}
{{- if and .gpu.product (eq $gpus 0) -}}
{{- fail (printf "%s.gpu.product: is %s, but gpu.count is 0" $field .gpu.product) -}}
{{- end -}}
{{- $amounts := list (default dict .resources.requests) (default dict .resources.limits) -}}
{{- range $amounts -}}
{{- if hasKey . $.pool.gpu.resource -}}
{{- fail (printf "%s.resources: %s follows from gpu.count" $field $.pool.gpu.resource) -}}
{{- end -}}
{{- end -}}
{{- if and .rdma.ipcLock (not .rdma.resource) -}}
{{- fail (printf "%s.rdma.ipcLock: is true, but rdma.resource names no device" $field) -}}
{{- end -}}
{{- include "pdserve.validateRollout" (dict "field" $field "rollout" .rollout) -}}
{{- include "pdserve.validateAutoscaling" (dict "field" $field "autoscaling" .autoscaling) -}}
{{- if not .autoscaling.target -}}
{{- fail (printf "%s.autoscaling.target: is 0; say how much of %s one instance should have" $field .autoscaling.metric) -}}
{{- end -}}
{{- if and .autoscaling.enabled (eq .autoscaling.kind "ScaledObject") (not .autoscaling.prometheus) -}}
{{- fail (printf "%s.autoscaling.prometheus: is empty; a ScaledObject asks Prometheus at that address" $field) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Call: field, rollout. */}}
{{- define "pdserve.validateRollout" -}}
{{- if and (has (toString .rollout.maxSurge) (list "0" "0%")) (has (toString .rollout.maxUnavailable) (list "0" "0%")) -}}
{{- fail (printf "%s.rollout.maxSurge: is 0 like maxUnavailable; then no pod could ever be replaced" .field) -}}
{{- end -}}
{{- end }}

{{/* Call: field, autoscaling. */}}
{{- define "pdserve.validateAutoscaling" -}}
{{- with .autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas: is %d, more than maxReplicas, %d" $.field (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end }}
