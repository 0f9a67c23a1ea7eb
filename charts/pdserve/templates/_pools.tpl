{{/*
All pools as a JSON list, each with everything that holds for it: `instances`, then what its phase
says in `defaults`, then its own keys. Added are
  role         prefill or decode
  field        where the pool stands in the values, for messages
  workload     name of its Deployment or LeaderWorkerSet
  pods         pods of one instance: more than one where its GPUs are more than a node has
  gpusPerPod
  groupNodes   nodes of all pools of its group
  tolerations  with one for nodes that are kept for GPUs
  autoscaling.metric, target, minReplicas  where the values say nothing
*/}}
{{- define "pdserve.pools" -}}
{{- $pools := list -}}
{{- $nodes := dict -}}
{{- range $role := list "prefill" "decode" -}}
{{- $phase := index $.Values $role -}}
{{- range $index, $own := $phase.pools -}}
{{- $pool := mustMergeOverwrite (deepCopy $.Values.instances) (deepCopy $phase.defaults) (deepCopy $own) -}}
{{- $gpus := int $pool.gpu.count -}}
{{- $pods := 1 -}}
{{- if gt $gpus (int $pool.gpu.perNode) -}}
{{- $pods = div (add $gpus (sub (int $pool.gpu.perNode) 1)) (int $pool.gpu.perNode) -}}
{{- end -}}
{{- $_ := set $pool "role" $role -}}
{{- if not $pool.autoscaling.metric -}}
{{- $_ := set $pool.autoscaling "metric" (ternary "pdserve_waiting_tokens" "pdserve_running_requests" (eq $role "prefill")) -}}
{{- $_ := set $pool.autoscaling "target" (default (ternary 4096 32 (eq $role "prefill")) $pool.autoscaling.target) -}}
{{- end -}}
{{- $_ := set $pool "field" (printf "%s.pools[%d]" $role $index) -}}
{{- $_ := set $pool "workload" (printf "%s-%s" (include "pdserve.fullname" $) $pool.name) -}}
{{- $_ := set $pool "pods" $pods -}}
{{- $_ := set $pool "gpusPerPod" (div $gpus $pods) -}}
{{- if gt $gpus 0 -}}
{{- $_ := set $pool "tolerations" (append $pool.tolerations (dict "key" $pool.gpu.resource "operator" "Exists") | uniq) -}}
{{- end -}}
{{- if not (hasKey $pool.autoscaling "minReplicas") -}}
{{- $_ := set $pool.autoscaling "minReplicas" (max 1 $pool.replicas) -}}
{{- end -}}
{{- $group := toString $pool.group -}}
{{- $_ := set $nodes $group (concat (get $nodes $group | default list) $pool.placement.nodes) -}}
{{- $pools = append $pools $pool -}}
{{- end -}}
{{- end -}}
{{- range $pools -}}
{{- $_ := set . "groupNodes" (get $nodes (toString .group)) -}}
{{- end -}}
{{- toJson $pools -}}
{{- end }}

{{/* TP × PP of a pool. */}}
{{- define "pdserve.ranks" -}}
{{- mul (default 1 .tensorParallelism) (default 1 .pipelineParallelism) -}}
{{- end }}

{{/* Whether a group is planned: group 0 is one too. Call: a pool. */}}
{{- define "pdserve.grouped" -}}
{{- if not (kindIs "invalid" .group) -}}true{{- end -}}
{{- end }}

{{/*
How many instances of a phase are there at least while all its pools roll at once. Call: root, role.
Percentages of maxUnavailable are rounded down; where nothing at all could move, Kubernetes takes 1.
*/}}
{{- define "pdserve.keptInRollout" -}}
{{- $kept := 0 -}}
{{- range include "pdserve.pools" .root | fromJsonArray -}}
{{- if eq .role $.role -}}
{{- $replicas := int (ternary .autoscaling.minReplicas .replicas .autoscaling.enabled) -}}
{{- $gone := toString .rollout.maxUnavailable -}}
{{- if hasSuffix "%" $gone -}}
{{- $gone = div (mul $replicas (trimSuffix "%" $gone | int)) 100 -}}
{{- end -}}
{{- $gone = int $gone -}}
{{- if and (eq $gone 0) (hasPrefix "0" (toString .rollout.maxSurge)) -}}
{{- $gone = 1 -}}
{{- end -}}
{{- $kept = add $kept (max 0 (sub $replicas $gone)) -}}
{{- end -}}
{{- end -}}
{{- $kept -}}
{{- end }}
