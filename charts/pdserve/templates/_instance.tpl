{{/*
The pod template of a pool's instances. Call: root, pool, and worker: true for the pods of an instance
beside its first one, which nobody but that one speaks to.
*/}}
{{- define "pdserve.instance" -}}
{{- $ := .root -}}
{{- $pool := .pool -}}
{{- $component := ternary (printf "%s-worker" $pool.role) $pool.role (default false .worker) -}}
metadata:
  labels:
    {{- with $pool.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "pdserve.podLabels" (dict "root" $ "component" $component "pool" $pool.name) | nindent 4 }}
    {{- if not .worker }}
    pdserve.io/role: {{ $pool.role }}
    {{- end }}
    {{- if include "pdserve.grouped" $pool }}
    {{- include "pdserve.groupLabels" $pool | nindent 4 }}
    {{- end }}
  annotations:
    pdserve.io/parallelism: {{ printf "tp=%d pp=%d" (int (default 1 $pool.tensorParallelism)) (int (default 1 $pool.pipelineParallelism)) }}
    {{- with $pool.networks }}
    k8s.v1.cni.cncf.io/networks: {{ join "," . | quote }}
    {{- end }}
    {{- with $pool.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "pdserve.podSettings" (dict "root" $ "spec" $pool "component" "instance") | nindent 2 }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ include "pdserve.gracePeriod" (dict "options" $pool.config "preStopSeconds" $pool.preStopSeconds) }}
  {{- $nodeSelector := deepCopy $pool.nodeSelector }}
  {{- if and $pool.gpu.product (gt (int $pool.gpu.count) 0) }}
  {{- $_ := set $nodeSelector "nvidia.com/gpu.product" $pool.gpu.product }}
  {{- end }}
  {{- with $nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "pdserve.affinity" (dict "root" $ "pool" $pool) }}
  affinity: {{- . | trim | nindent 4 }}
  {{- end }}
  {{- with include "pdserve.topologySpread" (dict "constraints" $pool.topologySpread "selector" (include "pdserve.selector" (dict "root" $ "component" $component "pool" $pool.name))) }}
  topologySpreadConstraints: {{- . | trim | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ $pool.role }}
      {{- include "pdserve.instanceContainer" (dict "root" $ "pool" $pool "worker" .worker) | nindent 6 }}
  volumes:
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $pool.shm.size }}}
    {{- include "pdserve.volumes" (dict "root" $ "secrets" (include "pdserve.instanceSecrets" $ | fromJson)) | nindent 4 }}
    {{- with $pool.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The container of an instance. Call: as for its pod. */}}
{{- define "pdserve.instanceContainer" -}}
{{- $ := .root -}}
{{- $pool := .pool -}}
image: {{ include "pdserve.image" (dict "root" $ "gpus" $pool.gpu.count "own" $pool.image) }}
imagePullPolicy: {{ default $.Values.image.pullPolicy $pool.image.pullPolicy }}
args:
  - {{ $pool.role }}
  {{- include "pdserve.options" (include "pdserve.instanceOptions" (dict "root" $ "pool" $pool) | fromJson) | trim | nindent 2 }}
env:
  {{- include "pdserve.environment" $ | nindent 2 }}
  - name: PDSERVE_ADVERTISE_HOST
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  {{- with $pool.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: grpc, containerPort: {{ $.Values.ports.grpc }}}
  - {name: metrics, containerPort: {{ $.Values.ports.metrics }}}
{{- if not .worker }}
{{ include "pdserve.probes" (dict "root" $ "tls" (ne $.Values.tls.links.secret "") "seconds" $pool.startupSeconds "started" "healthy") }}
{{- end }}
{{- with include "pdserve.preStop" $pool.preStopSeconds }}
{{ . }}
{{- end }}
resources: {{- include "pdserve.instanceResources" $pool | nindent 2 }}
securityContext:
  {{- $security := deepCopy $.Values.containerSecurityContext }}
  {{- if $pool.rdma.ipcLock }}
  {{- $_ := mustMerge $security (dict "capabilities" dict) }}
  {{- $_ := set $security.capabilities "add" (append (default list $security.capabilities.add) "IPC_LOCK") }}
  {{- end }}
  {{- toYaml $security | nindent 2 }}
volumeMounts:
  - {name: shm, mountPath: /dev/shm}
  {{- include "pdserve.volumeMounts" (dict "root" $ "secrets" (include "pdserve.instanceSecrets" $ | fromJson)) | nindent 2 }}
  {{- with $pool.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* All options of a pool's instances, as JSON. Call: root, pool. */}}
{{- define "pdserve.instanceOptions" -}}
{{- $values := .root.Values -}}
{{- $fixed := dict "model" $values.model "host" $values.listen "port" $values.ports.grpc "metrics_port" $values.ports.metrics -}}
{{- $_ := set $fixed "device" (ternary "cuda" "cpu" (gt (int .pool.gpu.count) 0)) -}}
{{- mustMergeOverwrite (deepCopy .pool.config) $fixed (include "pdserve.linkOptions" .root | fromJson) | toJson -}}
{{- end }}

{{/* Secrets that an instance mounts, by name of the volume. Call: root. */}}
{{- define "pdserve.instanceSecrets" -}}
{{- $secrets := dict -}}
{{- with .Values.tls.links.secret -}}{{- $_ := set $secrets "link-tls" . -}}{{- end -}}
{{- toJson $secrets -}}
{{- end }}

{{/*
Resources with the GPUs and the RDMA devices, of which requests are limits. Weights go to the GPUs
tensor by tensor; what the host needs is room for CUDA and for the largest of them. Call: a pool.
*/}}
{{- define "pdserve.instanceResources" -}}
{{- $gpus := int .gpusPerPod -}}
{{- $resources := dict "requests" (dict "cpu" "1" "memory" "2Gi") "limits" (dict "memory" "4Gi") -}}
{{- if gt $gpus 0 -}}
{{- $request := dict "cpu" (mul 2 $gpus | toString) "memory" (printf "%dGi" (mul 8 $gpus)) -}}
{{- $resources = dict "requests" $request "limits" (dict "memory" (printf "%dGi" (mul 32 $gpus))) -}}
{{- end -}}
{{- if .resources -}}{{- $resources = deepCopy .resources -}}{{- end -}}
{{- $limits := default dict $resources.limits -}}
{{- if gt $gpus 0 -}}
{{- $_ := set $limits .gpu.resource $gpus -}}
{{- end -}}
{{- if .rdma.resource -}}
{{- $_ := set $limits .rdma.resource (int .rdma.count) -}}
{{- end -}}
{{- with $limits -}}{{- $_ := set $resources "limits" . -}}{{- end -}}
{{- toYaml $resources -}}
{{- end }}
