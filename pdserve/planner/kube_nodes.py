"""The nodes of a Kubernetes cluster as a cluster to plan for."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pdserve.cluster.kubernetes_pod import PlaceLabels
from pdserve.errors import ConfigError
from pdserve.latency.hardware import Gpu, find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.cluster_file import DIFFERS
from pdserve.planner.yaml_output import tidy

# An object of the API.
Json = Mapping[str, Any]

GPUS = "nvidia.com/gpu"
_PRODUCT, _MEMORY = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
_MIB, _GIB = 1 << 20, 1 << 30
# Of a GPU's memory: what drivers report differs by less from one version to the next.
_SAME_MEMORY = 0.02
_ENDED = ("Succeeded", "Failed")
_KEEPS_AWAY = ("NoSchedule", "NoExecute")
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class NodeTerms:
    """What the nodes do not say of themselves.

    `network_bytes_per_s` and `gpu_hour_price` are those of each node. `labels` say where it is;
    nodes of no rack that share an NVLink domain are taken for one. Nodes with a taint whose key is
    not `tolerated` are left out, but for that of GPUs, which every pod with GPUs tolerates.
    """

    labels: PlaceLabels
    network_bytes_per_s: float
    gpu_hour_price: float = 0.0
    tolerated: frozenset[str] = field(default_factory=frozenset)


def cluster_of_nodes(
    nodes: Sequence[Json], pods: Iterable[Json], terms: NodeTerms
) -> tuple[Cluster, list[str]]:
    """The nodes with GPUs that no pod has asked for, and notes on what was left out and why.

    Raises `ConfigError` with those notes where nothing is left.
    """
    used = _used_gpus(pods)
    found: list[Node] = []
    notes: defaultdict[str, list[str]] = defaultdict(list)
    for node in sorted(nodes, key=_name):
        gpus = _whole(node.get("status", {}).get("allocatable", {}).get(GPUS))
        if not gpus and _PRODUCT not in _labels(node):
            continue
        free = max(0, gpus - used[_name(node)])
        kind, why = _kind(node)
        why = _kept_away(node, terms.tolerated) or why or _none_free(gpus, free)
        if why or kind is None:
            notes[f"left out, {why}"].append(_name(node))
            continue
        if free < gpus:
            notes["with GPUs that pods have asked for already"].append(_name(node))
        found.append(_node(node, kind, free, terms))
    told = [f"{_names(names)}: {note}" for note, names in notes.items()]
    if not found:
        raise ConfigError(
            f"no node has a free {GPUS}{': ' * bool(told)}{'; '.join(told)}", field="from_kube"
        )
    return Cluster(tuple(found)), told


def _used_gpus(pods: Iterable[Json]) -> Counter[str]:
    """GPUs that pods on a node have asked for, by its name."""
    used: Counter[str] = Counter()
    for pod in pods:
        spec = pod.get("spec", {})
        if spec.get("nodeName") and pod.get("status", {}).get("phase") not in _ENDED:
            used[spec["nodeName"]] += _asked_for(spec)
    return used


def _asked_for(spec: Json) -> int:
    """GPUs of a pod: those of its containers, or of one that runs before them if that has more."""
    before = spec.get("initContainers") or ()
    # One that is restarted whenever it ends runs beside the containers.
    beside = sum(_gpus(each) for each in before if each.get("restartPolicy") == "Always")
    running = beside + sum(_gpus(each) for each in spec.get("containers") or ())
    return max([running, *(_gpus(each) for each in before)])


def _gpus(container: Json) -> int:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return _whole(asked.get(GPUS))


def _whole(quantity: Any) -> int:
    """A quantity of whole things; 0 where there is none."""
    text = str(quantity or "")
    return int(text) if text.isdecimal() else 0


def _kept_away(node: Json, tolerated: frozenset[str]) -> str:
    """Why no new pod gets onto the node; empty where one does."""
    spec = node.get("spec", {})
    if spec.get("unschedulable"):
        return "cordoned"
    conditions = node.get("status", {}).get("conditions") or ()
    if not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        return "not ready"
    for taint in spec.get("taints") or ():
        key = taint["key"]
        if taint["effect"] in _KEEPS_AWAY and key != GPUS and key not in tolerated:
            return f"tainted {key}: --tolerate {key} plans with it, tolerations of the chart too"
    return ""


def _kind(node: Json) -> tuple[Gpu | None, str]:
    """The node's kind of GPU, or why there is none."""
    labels = _labels(node)
    product = labels.get(_PRODUCT)
    if not product:
        return None, f"no label {_PRODUCT}, which GPU feature discovery sets"
    try:
        gpu = find_gpu(product)
    except ConfigError:
        how = "describe it in the cluster file, with memory_gib, tflops, memory_gbs and link_gbs"
        return None, f"GPU {product} is not known: {how}"
    memory = _whole(labels.get(_MEMORY)) * _MIB
    if not memory or abs(memory - gpu.memory_bytes) <= _SAME_MEMORY * gpu.memory_bytes:
        return gpu, ""
    name = f"{gpu.name}{DIFFERS}{tidy(round(memory / _GIB, 1))}GiB"
    return replace(gpu, name=name, memory_bytes=memory), ""


def _none_free(gpus: int, free: int) -> str:
    if not gpus:
        return f"no {GPUS} can be allocated there"
    return "" if free else "pods have asked for all GPUs"


def _node(node: Json, gpu: Gpu, gpus: int, terms: NodeTerms) -> Node:
    place = terms.labels.place(_name(node), _labels(node))
    return Node(
        name=place.node,
        gpu=gpu,
        gpus=gpus,
        network_bytes_per_s=terms.network_bytes_per_s,
        rack=place.rack or place.clique,
        zone=place.zone,
        gpu_hour_price=terms.gpu_hour_price,
    )


def _name(node: Json) -> str:
    return str(node["metadata"]["name"])


def _labels(node: Json) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
