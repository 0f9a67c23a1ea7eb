"""Flags that name a cluster to plan for, and the cluster that they name."""

import argparse
import math
from pathlib import Path

from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.cluster_file import MOST_GPUS, MOST_NODES, bytes_per_s, read_cluster

# For the help of commands that take a cluster.
CLUSTER_EXAMPLES = """\
clusters:
  --cluster cluster.yaml
  --gpu h100 --gpus-per-node 8
  --nodes 8 --gpu h100 --gpus-per-node 8 --network-gbps 400 --gpu-hour-price 2.5
"""
_ALIKE = ("nodes", "gpu", "gpus_per_node", "network_gbps", "gpu_hour_price")


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--cluster`, and the flags that describe nodes which are all alike."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster", type=Path, metavar="FILE", help="YAML file that describes the cluster"
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


def has_cluster(arguments: argparse.Namespace) -> bool:
    """Whether any of the flags of `add_cluster_flags` was given."""
    return any(getattr(arguments, name) is not None for name in ("cluster", *_ALIKE))


def load_cluster(arguments: argparse.Namespace) -> Cluster:
    """The cluster that the flags of `add_cluster_flags` name.

    Nodes that are all alike are called node-0, node-1 and so on. Raises `ConfigError` naming the
    flag, or the key of the file.
    """
    if arguments.cluster is None:
        return _alike(arguments)
    for name in _ALIKE:
        if getattr(arguments, name) is not None:
            raise ConfigError(f"{_flag(name)} does not go with --cluster", field=name)
    return read_cluster(arguments.cluster)


def _alike(arguments: argparse.Namespace) -> Cluster:
    for name in ("gpu", "gpus_per_node"):
        if getattr(arguments, name) is None:
            text = f"no {_flag(name)}: a cluster is --cluster FILE, or --gpu and --gpus-per-node"
            raise ConfigError(text, field=name)
    count = 1 if arguments.nodes is None else arguments.nodes
    _check("nodes", count, 1, MOST_NODES)
    _check("gpus_per_node", arguments.gpus_per_node, 1, MOST_GPUS)
    try:
        gpu = find_gpu(arguments.gpu)
    except ConfigError as error:
        text = f"--gpu: {error}, in a --cluster file"
        raise ConfigError(text, field="gpu", limit=error.limit) from error
    price = arguments.gpu_hour_price
    if price is not None and not 0 <= price < math.inf:
        text = f"--gpu-hour-price is {price}; it must be a number from 0 on"
        raise ConfigError(text, field="gpu_hour_price", limit=">= 0")
    network = _network(arguments.network_gbps, count)
    nodes = tuple(
        Node(f"node-{index}", gpu, arguments.gpus_per_node, network, gpu_hour_price=price or 0.0)
        for index in range(count)
    )
    return Cluster(nodes)


def _network(gbps: float | None, nodes: int) -> float:
    """Bytes per second; nothing limits the network of a node that is alone."""
    if gbps is None:
        if nodes > 1:
            text = "no --network-gbps: several nodes hand KV over their network"
            raise ConfigError(text, field="network_gbps")
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
