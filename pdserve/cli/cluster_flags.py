"""Flags that name a cluster to plan for, and the cluster that they name."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from pdserve.cluster.kubernetes_pod import PlaceLabels
from pdserve.config import RouterConfig
from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.cluster_file import MOST_GPUS, MOST_NODES, bytes_per_s, read_cluster
from pdserve.planner.kube_nodes import NodeTerms

# For the help of commands that take a cluster.
CLUSTER_EXAMPLES = """\
clusters:
  --cluster cluster.yaml
  --gpu h100 --gpus-per-node 8
  --nodes 8 --gpu h100 --gpus-per-node 8 --network-gbps 400 --gpu-hour-price 2.5
  --from-kube --network-gbps 400
"""
_NODES = ("nodes", "gpu", "gpus_per_node")
_TERMS = ("network_gbps", "gpu_hour_price")
_KUBE = ("rack_label", "tolerate")


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--cluster`, `--from-kube`, and the flags that describe nodes which are all alike."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster", type=Path, metavar="FILE", help="YAML file that describes the cluster"
    )
    group.add_argument(
        "--from-kube",
        nargs="?",
        const="",
        metavar="CONTEXT",
        help="instead: the free GPUs of the cluster that kubectl would talk to",
    )
    group.add_argument(
        "--nodes", type=int, metavar="N", help="instead: nodes, all alike (default: 1)"
    )
    group.add_argument("--gpu", metavar="KIND", help="kind of their GPUs, such as h100 or l40s")
    group.add_argument("--gpus-per-node", type=int, metavar="N", help="GPUs of each node")
    group.add_argument(
        "--network-gbps",
        type=float,
        metavar="G",
        help="network of a node, 10^9 bits/s each way, all its cards together",
    )
    group.add_argument(
        "--gpu-hour-price", type=float, metavar="P", help="price of a GPU an hour (default: 0)"
    )
    group.add_argument(
        "--rack-label",
        metavar="LABEL",
        help="label of Kubernetes nodes that names their rack (default: that of the router)",
    )
    group.add_argument(
        "--tolerate",
        action="append",
        metavar="KEY",
        help="plan with nodes that have a taint of this key; may be repeated",
    )


def has_cluster(arguments: argparse.Namespace) -> bool:
    """Whether any of the flags of `add_cluster_flags` was given."""
    names = ("cluster", "from_kube", *_NODES, *_TERMS, *_KUBE)
    return any(getattr(arguments, name) is not None for name in names)


def load_cluster(arguments: argparse.Namespace) -> Cluster:
    """The cluster that the flags of `add_cluster_flags` name.

    Nodes that are all alike are called node-0, node-1 and so on. Raises `ConfigError` naming the
    flag, or the key of the file.
    """
    if arguments.cluster is not None:
        _refuse(arguments, "--cluster", ("from_kube", *_NODES, *_TERMS, *_KUBE))
        return read_cluster(arguments.cluster)
    if arguments.from_kube is not None:
        _refuse(arguments, "--from-kube", _NODES)
        return _from_kube(arguments)
    for name in _KUBE:
        if getattr(arguments, name) is not None:
            raise ConfigError(f"{_flag(name)} goes with --from-kube alone", field=name)
    return _alike(arguments)


def _refuse(arguments: argparse.Namespace, chosen: str, names: Sequence[str]) -> None:
    for name in names:
        if getattr(arguments, name) is not None:
            raise ConfigError(f"{_flag(name)} does not go with {chosen}", field=name)


def _from_kube(arguments: argparse.Namespace) -> Cluster:
    from pdserve.cli.kube_cluster import kube_cluster

    terms = NodeTerms(
        labels=PlaceLabels(arguments.rack_label or RouterConfig().rack_label),
        network_bytes_per_s=_network(arguments.network_gbps),
        gpu_hour_price=_price(arguments.gpu_hour_price),
        tolerated=frozenset(arguments.tolerate or ()),
    )
    return kube_cluster(arguments.from_kube, terms)


def _alike(arguments: argparse.Namespace) -> Cluster:
    for name in ("gpu", "gpus_per_node"):
        if getattr(arguments, name) is None:
            text = (
                f"no {_flag(name)}: a cluster is --cluster FILE, --from-kube, or --gpu and "
                "--gpus-per-node"
            )
            raise ConfigError(text, field=name)
    count = 1 if arguments.nodes is None else arguments.nodes
    _check("nodes", count, 1, MOST_NODES)
    _check("gpus_per_node", arguments.gpus_per_node, 1, MOST_GPUS)
    try:
        gpu = find_gpu(arguments.gpu)
    except ConfigError as error:
        text = f"--gpu: {error}, in a --cluster file"
        raise ConfigError(text, field="gpu", limit=error.limit) from error
    price = _price(arguments.gpu_hour_price)
    network = _network(arguments.network_gbps)
    if count > 1 and math.isinf(network):
        text = "no --network-gbps: several nodes hand KV over their network"
        raise ConfigError(text, field="network_gbps")
    nodes = tuple(
        Node(f"node-{index}", gpu, arguments.gpus_per_node, network, gpu_hour_price=price)
        for index in range(count)
    )
    return Cluster(nodes)


def _price(price: float | None) -> float:
    """Of a GPU an hour; 0: not known."""
    if price is not None and not 0 <= price < math.inf:
        text = f"--gpu-hour-price is {price}; it must be a number from 0 on"
        raise ConfigError(text, field="gpu_hour_price", limit=">= 0")
    return price or 0.0


def _network(gbps: float | None) -> float:
    """Bytes per second; nothing limits the network of a node that is alone."""
    if gbps is None:
        return math.inf
    if not 0 < gbps < math.inf:
        text = f"--network-gbps is {gbps}; it must be a number above 0"
        raise ConfigError(text, field="network_gbps", limit="> 0")
    return bytes_per_s(gbps)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        limit = f"[{low}, {high}]"
        raise ConfigError(
            f"{_flag(name)} is {value}; it must lie in {limit}", field=name, limit=limit
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
