"""What layouts, roles, shapes and resources are called for people."""

from collections import Counter

from pdserve.planner.cluster import Cluster
from pdserve.planner.plan import InstancePlan, Layout, Placement, Role, Shape
from pdserve.planner.report.formats import listed, plural

LAYOUTS: dict[Layout, str] = {
    "apart": "disaggregated, apart",
    "paired": "disaggregated, paired",
    "colocated-chunked": "colocated, in chunks",
    "colocated-whole": "colocated, whole prompts",
}
ROLE_NAMES: dict[Role, str] = {"prefill": "prefill", "decode": "decode", "both": "colocated"}
# What gives way first, and what helps against that.
RESOURCES: dict[str, tuple[str, str]] = {
    "prefill computing": (
        "Prefill computing",
        "more prefill instances, faster GPUs for them, or a looser TTFT SLO",
    ),
    "decode steps": (
        "The time of decode steps",
        "more decode instances or GPUs with more memory bandwidth, so that fewer sequences share "
        "a step, or a looser TPOT SLO",
    ),
    "links": (
        "The network between prefill and decode",
        "faster network cards, or prefill and decode stages on the same nodes",
    ),
    "KV memory of prefill": (
        "KV memory of prefill, where prompts wait to be fetched",
        "decode instances that fetch sooner, or prefill GPUs with more memory",
    ),
    "KV memory of decode": (
        "KV memory of decode",
        "more decode instances, or GPUs with more memory for them",
    ),
}

# The same for instances that do both phases, which have no others to take over.
COLOCATED_RESOURCES: dict[str, tuple[str, str]] = {
    "prefill computing": (
        "Prefill computing",
        "more instances, faster GPUs, or a looser TTFT SLO",
    ),
    "decode steps": (
        "The time of steps, in which prompts and tokens share an instance,",
        "more instances, GPUs with more memory bandwidth, or a looser TPOT SLO",
    ),
    "KV memory": (
        "KV memory",
        "GPUs with more memory, or more of them to an instance, so that weights leave more room",
    ),
}


def parallelism(cluster: Cluster, shape: Shape) -> str:
    """TP and PP, and the kind of GPU where the cluster has several."""
    text = f"tp={shape.tp},pp={shape.pp}"
    return f"{text} on {shape.gpu}" if len(cluster.kinds) > 1 else text


def gpus_of(placement: Placement) -> str:
    """How many GPUs of which kinds a plan takes."""
    kinds = Counter[str]()
    for instance in placement.instances:
        kinds[instance.gpu] += instance.gpus
    total = plural(placement.gpus, "GPU")
    if len(kinds) == 1:
        return f"{total} ({next(iter(kinds))})"
    return f"{total} ({listed([f'{count} {kind}' for kind, count in kinds.items()])})"


def short_name(instance: InstancePlan) -> str:
    """A label for where there is little room: the role's letter and the number."""
    letter = {"prefill": "P", "decode": "D", "both": "C"}[instance.role]
    return letter + instance.name.rpartition("-")[2]
