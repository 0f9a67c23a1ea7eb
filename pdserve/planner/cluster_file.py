"""A cluster as a YAML file; docs/clusters.md describes the format."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pdserve.errors import ConfigError
from pdserve.latency.hardware import Gpu, describe_gpu, find_gpu, known_gpus
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.yaml_fields import Fields, read_fields
from pdserve.planner.yaml_output import in_unit, tidy, write_yaml

VERSION = 1
# Stands between a kind's name and what is otherwise on a node: `H100-SXM5-80GB+64GiB`.
DIFFERS = "+"
MOST_GPUS = 1024
MOST_NODES = 1 << 16

_KEYS = ("version", "link_latency_ms", "gpus", "nodes", "racks", "zones")
_GPU_NUMBERS = ("memory_gib", "tflops", "tflops_float32", "memory_gbs", "link_gbs")
_GPU_KEYS = ("name", *_GPU_NUMBERS, "link_shared")
_OVERRIDES = ("memory_gib", "intra_node_gbs", "link_shared")
_NODE_KEYS = (
    "name",
    "count",
    "gpu",
    "gpus",
    "network_gbps",
    "rack",
    "zone",
    "gpu_hour_price",
    *_OVERRIDES,
)
_UPLINK_KEYS = ("uplink_gbps", "oversubscription")
_GIB, _TERA, _GIGA = 1 << 30, 1e12, 1e9


def read_cluster(path: str | Path) -> Cluster:
    """The cluster that the file describes, its nodes in the file's order.

    Raises `ConfigError` with the file, the key, its value and the limit, or the line where the text
    is not YAML.
    """
    document = read_fields(Path(path), "cluster", VERSION, _KEYS)
    latency_ms = document.number("link_latency_ms", default=1.0)
    kinds = _kinds(document)
    nodes: list[Node] = []
    entries: dict[str, str] = {}
    for entry in document.mappings("nodes", _NODE_KEYS):
        for node in _nodes(entry, kinds):
            if node.name in entries:
                raise entry.wrong("name", f"{node.name!r} is that of {entries[node.name]} too")
            entries[node.name] = entry.where
            nodes.append(node)
        if len(nodes) > MOST_NODES:
            limit = f"[1, {MOST_NODES}]"
            raise document.wrong("nodes", f"there are {len(nodes)}; allowed are {limit}", limit)
    if len(nodes) > 1:
        _check_networks(nodes, document, entries)
    return Cluster(
        nodes=tuple(nodes),
        rack_uplinks=_uplinks(document, "racks", nodes, lambda node: node.rack),
        zone_uplinks=_uplinks(document, "zones", nodes, lambda node: node.zone),
        link_latency_s=_seconds(latency_ms),
    )


def write_cluster(cluster: Cluster, path: str | Path) -> None:
    """Writes the cluster so that `read_cluster` gives an equal one; each node is one line.

    A rate that no float of the file's unit gives may change in its last bit. Raises `ConfigError`
    where the file cannot be written, or two kinds of GPU have one name.
    """
    kinds: dict[str, Gpu] = {}
    for node in cluster.nodes:
        if kinds.setdefault(node.gpu.name, node.gpu) != node.gpu:
            raise ConfigError(
                f"node {node.name}: its {node.gpu.name} differs from that of another node",
                field="gpu",
            )
    described = [_gpu_entry(gpu) for gpu in kinds.values() if gpu not in known_gpus()]
    latency_s = cluster.link_latency_s
    document: dict[str, Any] = {
        "version": VERSION,
        "link_latency_ms": in_unit(latency_s, latency_s * 1e3, _seconds),
        "gpus": described,
        "nodes": [_node_entry(node) for node in cluster.nodes],
        "racks": _uplink_entries(cluster.rack_uplinks),
        "zones": _uplink_entries(cluster.zone_uplinks),
    }
    write_yaml({key: value for key, value in document.items() if value not in ([], {})}, Path(path))


def bytes_per_s(gbps: float) -> float:
    """Bytes per second of a network that moves so many 10⁹ bits per second."""
    return gbps * _GIGA / 8


def _seconds(ms: float) -> float:
    return ms / 1e3


def _kinds(document: Fields) -> dict[str, Gpu]:
    """The kinds that the file describes, by name."""
    kinds: dict[str, Gpu] = {}
    for entry in document.mappings("gpus", _GPU_KEYS) if document.has("gpus") else ():
        name = entry.text("name")
        if name in kinds:
            raise entry.wrong("name", f"{name!r} is described twice")
        for key in _GPU_NUMBERS:
            if key != "tflops_float32" or entry.has(key):
                entry.positive(key)
        entry.truth("link_shared", default=False)
        kinds[name] = describe_gpu(entry.values)
    return kinds


def _nodes(entry: Fields, kinds: Mapping[str, Gpu]) -> list[Node]:
    """The node, or the nodes that `count` makes of it."""
    name = entry.text("name")
    names = [name]
    if entry.has("count"):
        names = [f"{name}-{index}" for index in range(entry.whole("count", 1, MOST_NODES))]
    node = Node(
        name=name,
        gpu=_kind(entry, kinds),
        gpus=entry.whole("gpus", 1, MOST_GPUS),
        network_bytes_per_s=(
            bytes_per_s(entry.positive("network_gbps")) if entry.has("network_gbps") else math.inf
        ),
        rack=entry.text("rack", default=""),
        zone=entry.text("zone", default=""),
        gpu_hour_price=entry.number("gpu_hour_price", default=0.0),
    )
    return [replace(node, name=each) for each in names]


def _kind(entry: Fields, kinds: Mapping[str, Gpu]) -> Gpu:
    """The kind of GPU: the file's own or the catalogue's, with what the entry overrides."""
    name = entry.text("gpu")
    if name in kinds:
        return _overridden(kinds[name], entry)
    try:
        gpu = find_gpu(name)
    except ConfigError as error:
        own = f"; this file describes {', '.join(kinds)}" if kinds else ""
        raise entry.wrong("gpu", f"{error}{own}", error.limit) from error
    return _overridden(kinds.get(gpu.name, gpu), entry)


def _overridden(gpu: Gpu, entry: Fields) -> Gpu:
    """The kind with the node's own figures, and named after them where they differ."""
    changed, words = gpu, []
    if entry.has("memory_gib"):
        gib = entry.positive("memory_gib")
        changed = replace(changed, memory_bytes=int(gib * _GIB))
        words += [f"{tidy(gib)}GiB"] if changed.memory_bytes != gpu.memory_bytes else []
    if entry.has("intra_node_gbs"):
        gbs = entry.positive("intra_node_gbs")
        changed = replace(changed, link_bytes_per_s=gbs * _GIGA)
        words += [f"link{tidy(gbs)}"] if changed.link_bytes_per_s != gpu.link_bytes_per_s else []
    if entry.has("link_shared"):
        changed = replace(changed, link_shared=entry.truth("link_shared"))
        if changed.link_shared != gpu.link_shared:
            words.append("shared" if changed.link_shared else "unshared")
    return replace(changed, name=DIFFERS.join([gpu.name, *words]))


def _check_networks(nodes: list[Node], document: Fields, entries: Mapping[str, str]) -> None:
    for node in nodes:
        if math.isinf(node.network_bytes_per_s):
            raise document.wrong(
                f"{entries[node.name]}.network_gbps",
                "is missing; only a cluster of one node goes without",
            )


def _uplinks(
    document: Fields, level: str, nodes: list[Node], group_of: Callable[[Node], str]
) -> dict[str, float]:
    """What each listed rack or zone sends to others, in bytes per second."""
    if not document.has(level):
        return {}
    groups = document.mapping(level)
    uplinks = {}
    for name in groups.values:
        members = [node for node in nodes if group_of(node) == name]
        if not members:
            raise groups.wrong(name, "no node is in it")
        zones = sorted({node.zone or "no zone" for node in members})
        if len(zones) > 1:
            raise groups.wrong(name, f"its nodes are in {' and '.join(zones)}; a rack is in one")
        fields = groups.mapping(name, _UPLINK_KEYS)
        if fields.has("uplink_gbps") == fields.has("oversubscription"):
            raise groups.wrong(name, f"must have one of {' and '.join(_UPLINK_KEYS)}")
        if fields.has("uplink_gbps"):
            uplinks[name] = bytes_per_s(fields.positive("uplink_gbps"))
            continue
        within = sum(node.network_bytes_per_s for node in members)
        if math.isinf(within):
            raise groups.wrong(name, "oversubscription needs the network_gbps of its nodes")
        uplinks[name] = within / fields.number("oversubscription", low=1.0)
    return uplinks


def _gpu_entry(gpu: Gpu) -> dict[str, Any]:
    def rate(value: float, unit: float) -> int | float:
        return in_unit(value, value / unit, lambda number: number * unit)

    entry: dict[str, Any] = {
        "name": gpu.name,
        "memory_gib": in_unit(
            gpu.memory_bytes, gpu.memory_bytes / _GIB, lambda number: int(number * _GIB)
        ),
        "tflops": rate(gpu.flops, _TERA),
        "memory_gbs": rate(gpu.memory_bytes_per_s, _GIGA),
        "link_gbs": rate(gpu.link_bytes_per_s, _GIGA),
    }
    if gpu.flops_float32 != gpu.flops:
        entry["tflops_float32"] = rate(gpu.flops_float32, _TERA)
    if gpu.link_shared:
        entry["link_shared"] = True
    return entry


def _node_entry(node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": node.name, "gpu": node.gpu.name, "gpus": node.gpus}
    if not math.isinf(node.network_bytes_per_s):
        entry["network_gbps"] = _gbps(node.network_bytes_per_s)
    if node.rack:
        entry["rack"] = node.rack
    if node.zone:
        entry["zone"] = node.zone
    if node.gpu_hour_price:
        entry["gpu_hour_price"] = tidy(node.gpu_hour_price)
    return entry


def _uplink_entries(uplinks: Mapping[str, float]) -> dict[str, Any]:
    # Without a limit is as good as not listed.
    return {
        name: {"uplink_gbps": _gbps(rate)} for name, rate in uplinks.items() if math.isfinite(rate)
    }


def _gbps(rate: float) -> int | float:
    return in_unit(rate, rate * 8 / _GIGA, bytes_per_s)
