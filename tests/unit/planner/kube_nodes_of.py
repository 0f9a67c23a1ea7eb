"""Manifests of GPU nodes and of pods that use them."""

from typing import Any


def gpu_node(
    name: str,
    product: str = "NVIDIA-H100-80GB-HBM3",
    gpus: int = 8,
    *,
    labels: dict[str, str] | None = None,
    memory_mib: int | None = None,
    ready: bool = True,
    cordoned: bool = False,
    taints: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A node as the GPU operator leaves it; each of `taints` is KEY:EFFECT."""
    said = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus)}
    if memory_mib is not None:
        said["nvidia.com/gpu.memory"] = str(memory_mib)
    pairs = (taint.split(":") for taint in taints)
    return {
        "metadata": {"name": name, "labels": {**said, **(labels or {})}},
        "spec": {
            "unschedulable": cordoned,
            "taints": [{"key": key, "value": "x", "effect": effect} for key, effect in pairs],
        },
        "status": {
            "allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def gpu_pod(name: str, node: str, *gpus: int, phase: str = "Running", before: int = 0) -> dict:
    """A pod with one container for each of `gpus`, and one of `before` GPUs that runs first."""

    def container(name: str, count: int) -> dict[str, Any]:
        limits = {"nvidia.com/gpu": str(count)}
        return {"name": name, "image": "none", "resources": {"limits": limits, "requests": limits}}

    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "initContainers": [container("first", before)] if before else [],
            "containers": [container(f"c{index}", count) for index, count in enumerate(gpus)],
        },
        "status": {"phase": phase},
    }
