"""A plan as values of the Helm chart; docs/plan-file.md describes the keys."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdserve.models.source import BUILT_IN
from pdserve.planner.cluster_file import DIFFERS
from pdserve.planner.plan import InstancePlan
from pdserve.planner.plan_file import PlanFile, slo_entry
from pdserve.planner.yaml_output import write_yaml

# The catalogue's names as the label `nvidia.com/gpu.product`, which GPU feature discovery makes of
# the name that the driver reports.
_PRODUCTS = {
    "A100-SXM4-40GB": "NVIDIA-A100-SXM4-40GB",
    "A100-SXM4-80GB": "NVIDIA-A100-SXM4-80GB",
    "H100-SXM5-80GB": "NVIDIA-H100-80GB-HBM3",
    "H200-SXM5-141GB": "NVIDIA-H200",
    "B200-SXM6-180GB": "NVIDIA-B200",
    "L40S": "NVIDIA-L40S",
    "L4": "NVIDIA-L4",
}


# Labels of nodes that instances of a group had better share: what is nearer than a rack, as the
# chart has it by default, and what is farther.
_NEARER = ("kubernetes.io/hostname", "nvidia.com/gpu.clique")
_FARTHER = ("topology.kubernetes.io/zone",)


@dataclass(frozen=True, slots=True)
class KubeTerms:
    """What a plan for a Kubernetes cluster rests on beside its nodes.

    Taints whose keys are `tolerated`, and the label that names the rack of a node; empty: that of
    the router.
    """

    tolerated: Sequence[str] = ()
    rack_label: str = ""


NO_TERMS = KubeTerms()


def to_values(plan: PlanFile, terms: KubeTerms = NO_TERMS) -> dict[str, Any]:
    """The plan as the chart takes it: for each phase pools of instances that are alike.

    Instances that do both phases are decode instances, as the router's `colocated` has it. In
    layout `paired` a pool is of one group, which it names. The `terms` hold for all instances.
    """
    prefill = [each for each in plan.instances if each.role == "prefill"]
    decode = [each for each in plan.instances if each.role != "prefill"]
    return {
        "model": plan.model,
        "slo": slo_entry(plan.slo),
        "router": {"config": _router_options(plan, terms)},
        **_instances(terms),
        "prefill": {"pools": _pools("prefill", prefill, grouped=plan.layout == "paired")},
        "decode": {"pools": _pools("decode", decode, grouped=plan.layout == "paired")},
    }


def write_values(plan: PlanFile, path: str | Path, terms: KubeTerms = NO_TERMS) -> None:
    """Writes the values of `to_values`; the same plan gives the same bytes.

    Raises `ConfigError` where the file cannot be written.
    """
    write_yaml(to_values(plan, terms), Path(path))


def pods_find(model: str) -> bool:
    """Whether a pod finds a model of this name without files of its own.

    It does for built-in names and hub ids. A plan that was made of local files calls the model like
    them, which no pod can look up.
    """
    return model in BUILT_IN or "/" in model


def product(kind: str) -> str:
    """The label `nvidia.com/gpu.product` of a kind of GPU.

    A kind that is not in the catalogue is taken to be named like its label. What a node has that
    its kind has not (after the `+`) is no part of the label.
    """
    name = kind.partition(DIFFERS)[0]
    return _PRODUCTS.get(name, name)


def _router_options(plan: PlanFile, terms: KubeTerms) -> dict[str, Any]:
    racks = {"rack_label": terms.rack_label} if terms.rack_label else {}
    return {"colocated": plan.colocated, **racks}


def _instances(terms: KubeTerms) -> dict[str, Any]:
    """What holds for all instances, and the router's right to read labels of nodes."""
    values: dict[str, Any] = {}
    if terms.tolerated:
        taints = sorted(set(terms.tolerated))
        values["tolerations"] = [{"key": key, "operator": "Exists"} for key in taints]
    if terms.rack_label:
        values["grouping"] = {"prefer": [*_NEARER, terms.rack_label, *_FARTHER]}
    rights = {"rbac": {"nodes": True}} if terms.rack_label else {}
    return ({"instances": values} if values else {}) | rights


def _pools(role: str, instances: Sequence[InstancePlan], *, grouped: bool) -> list[dict[str, Any]]:
    """Instances of one shape, and of one group where they are `grouped`, make a pool."""
    pools: dict[tuple[object, ...], list[InstancePlan]] = {}
    for each in instances:
        shape = (each.gpu, each.tp, each.pp, each.max_batch_tokens, each.max_batch_seqs)
        pools.setdefault((*shape, each.group if grouped else None), []).append(each)
    return [
        _pool(f"{role}-{index}", alike, grouped=grouped)
        for index, alike in enumerate(pools.values())
    ]


def _pool(name: str, alike: Sequence[InstancePlan], *, grouped: bool) -> dict[str, Any]:
    one = alike[0]
    config = {"max_batch_tokens": one.max_batch_tokens, "max_batch_seqs": one.max_batch_seqs}
    if not one.max_batch_tokens:  # no limit in the plan: what the option says by default
        del config["max_batch_tokens"]
    pool: dict[str, Any] = {
        "name": name,
        "replicas": len(alike),
        "tensorParallelism": one.tp,
        "pipelineParallelism": one.pp,
        "gpu": _gpu(alike),
        "config": config,
        # In the plan's order, each node once.
        "placement": {"nodes": list(dict.fromkeys(node for each in alike for node in each.nodes))},
    }
    return pool | ({"group": one.group} if grouped else {})


def _gpu(alike: Sequence[InstancePlan]) -> dict[str, Any]:
    """The GPUs of an instance; how many a pod has where one instance lies on several nodes.

    All pods of an instance are alike, so that a node may have more than one of them.
    """
    one = alike[0]
    stages = (count for each in alike for count in Counter(each.nodes).values())
    pod = one.tp * math.gcd(*stages)
    gpu = {"product": product(one.gpu), "count": one.gpus}
    return gpu | ({"perNode": pod} if pod < one.gpus else {})
