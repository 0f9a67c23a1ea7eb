"""The flags by which commands take a cluster."""

import argparse
import math
from pathlib import Path

import pytest

from pdserve.cli.cluster_flags import add_cluster_flags, has_cluster, load_cluster
from pdserve.cli.workload_flags import add_workload_flags
from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node

ALIKE = ("--nodes=2", "--gpu=h100", "--gpus-per-node=8", "--network-gbps=400")


def parsed(*words: str) -> argparse.Namespace:
    """As a command parses them that also takes a workload and a budget of GPUs."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_cluster_flags(parser)
    add_workload_flags(parser)
    parser.add_argument("--gpus", type=int)
    return parser.parse_args(words)


def load(*words: str) -> Cluster:
    return load_cluster(parsed(*words))


def test_nodes_that_are_alike() -> None:
    gpu = find_gpu("h100")
    assert load(*ALIKE, "--gpu-hour-price=2.5", "--gpus=3").nodes == (
        Node("node-0", gpu, 8, 50e9, gpu_hour_price=2.5),
        Node("node-1", gpu, 8, 50e9, gpu_hour_price=2.5),
    )


def test_one_node_needs_no_network() -> None:
    [node] = load("--gpu=l40s", "--gpus-per-node=4").nodes
    assert (node.gpus, node.network_bytes_per_s, node.gpu_hour_price) == (4, math.inf, 0.0)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("version: 1\nnodes: [{name: a, gpu: l4, gpus: 2}]\n")
    assert load(f"--cluster={path}").gpus == 2
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load("--cluster=none.yaml")


def test_whether_any_was_given() -> None:
    assert not has_cluster(parsed("--gpus=3"))
    assert has_cluster(parsed("--cluster=x.yaml"))
    assert has_cluster(parsed("--nodes=0"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "no --gpu: a cluster is --cluster FILE, --from-kube, or --gpu and --gpus-per-node"),
        (("--cluster=x", "--from-kube"), "--from-kube does not go with --cluster"),
        (("--from-kube", "--gpu=h100"), "--gpu does not go with --from-kube"),
        ((*ALIKE, "--tolerate=key"), "--tolerate goes with --from-kube alone"),
        (("--gpu=h100",), "no --gpus-per-node"),
        (("--gpus-per-node=8",), "no --gpu:"),
        (("--cluster=x", "--nodes=2"), "--nodes does not go with --cluster"),
        (("--cluster=x", "--gpu-hour-price=2"), "--gpu-hour-price does not go with --cluster"),
        ((*ALIKE, "--nodes=0"), "--nodes is 0; it must lie in [1, 65536]"),
        ((*ALIKE, "--gpus-per-node=-1"), "--gpus-per-node is -1"),
        ((*ALIKE, "--gpu=h1"), "--gpu: GPU 'h1' is not known"),
        ((*ALIKE, "--network-gbps=nan"), "--network-gbps is nan"),
        ((*ALIKE, "--network-gbps=-1"), "--network-gbps is -1"),
        ((*ALIKE, "--gpu-hour-price=-1"), "--gpu-hour-price is -1"),
        ((*ALIKE, "--gpu-hour-price=inf"), "--gpu-hour-price is inf"),
        (ALIKE[:3], "no --network-gbps: several nodes"),
    ],
)
def test_a_mistake_names_the_flag(words: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*words)
    assert named in str(caught.value)
