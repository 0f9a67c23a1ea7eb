"""A plan as values of the Helm chart; docs/plan-file.md describes the keys."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def to_values(plan: PlanFile) -> dict[str, Any]:
    """The plan as the chart takes it: for each phase pools of instances that are alike.

    Instances that do both phases are decode instances, as the router's `colocated` has it. In
    layout `paired` a pool is of one group, which it names.
    """
    prefill = [each for each in plan.instances if each.role == "prefill"]
    decode = [each for each in plan.instances if each.role != "prefill"]
    return {
        "model": plan.model,
        "slo": slo_entry(plan.slo),
        "router": {"config": {"colocated": plan.colocated}},
        "prefill": {"pools": _pools("prefill", prefill, grouped=plan.layout == "paired")},
        "decode": {"pools": _pools("decode", decode, grouped=plan.layout == "paired")},
    }


def write_values(plan: PlanFile, path: str | Path) -> None:
    """Writes the values of `to_values`; the same plan gives the same bytes.

    Raises `ConfigError` where the file cannot be written.
    """
    write_yaml(to_values(plan), Path(path))


def product(kind: str) -> str:
    """The label `nvidia.com/gpu.product` of a kind of GPU.

    A kind that is not in the catalogue is taken to be named like its label. What a node has that
    its kind has not (after the `+`) is no part of the label.
    """
    name = kind.partition(DIFFERS)[0]
    return _PRODUCTS.get(name, name)


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
