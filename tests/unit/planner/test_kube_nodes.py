"""Which of a cluster's GPUs a plan may use, and what it is told of them."""

from typing import Any

import pytest

from pdserve.cluster.kubernetes_pod import PlaceLabels
from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.cluster_file import read_cluster, write_cluster
from pdserve.planner.kube_nodes import NodeTerms, cluster_of_nodes
from tests.unit.planner.kube_nodes_of import gpu_node, gpu_pod

TERMS = NodeTerms(PlaceLabels("example.com/rack"), 50e9, gpu_hour_price=2.0)


def read(nodes: list[dict], *pods: dict, **changes: Any) -> tuple[Cluster, list[str]]:
    terms = NodeTerms(TERMS.labels, TERMS.network_bytes_per_s, TERMS.gpu_hour_price, **changes)
    return cluster_of_nodes(nodes, pods, terms)


def free(nodes: list[dict], *pods: dict) -> dict[str, int]:
    return {node.name: node.gpus for node in read(nodes, *pods)[0].nodes}


def test_nodes_of_several_kinds_become_a_cluster() -> None:
    places = {"example.com/rack": "r1", "topology.kubernetes.io/zone": "z1"}
    cluster, notes = read(
        [
            gpu_node("h", labels=places, memory_mib=81559),
            gpu_node("a", "NVIDIA-A100-SXM4-80GB", 4, labels={"nvidia.com/gpu.clique": "c.0"}),
            gpu_node("l", "NVIDIA-L40S", 2),
            {"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}},
        ]
    )
    assert cluster.nodes == (
        Node("a", find_gpu("a100"), 4, 50e9, rack="c.0", gpu_hour_price=2.0),
        Node("h", find_gpu("h100"), 8, 50e9, rack="r1", zone="z1", gpu_hour_price=2.0),
        Node("l", find_gpu("l40s"), 2, 50e9, gpu_hour_price=2.0),
    )
    assert notes == []


@pytest.mark.parametrize(
    ("pod", "left"),
    [
        (gpu_pod("p", "n", 2), 6),
        (gpu_pod("p", "n", 2, 1), 5),
        (gpu_pod("p", "n", 1, before=4), 4),
        (gpu_pod("p", "n", 3, phase="Pending"), 5),
        (gpu_pod("p", "n", 3, phase="Succeeded"), 8),
        (gpu_pod("p", "n", 3, phase="Failed"), 8),
        (gpu_pod("p", "", 3, phase="Pending"), 8),
        (gpu_pod("p", "other", 3), 8),
    ],
)
def test_what_pods_have_asked_for_is_not_free(pod: dict, left: int) -> None:
    assert free([gpu_node("n")], pod) == {"n": left}


def test_a_container_beside_the_others_counts_with_them() -> None:
    pod = gpu_pod("p", "n", 1, before=2)
    pod["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    assert free([gpu_node("n")], pod) == {"n": 5}


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (gpu_node("x", cordoned=True), "left out, cordoned"),
        (gpu_node("x", ready=False), "left out, not ready"),
        (gpu_node("x", taints=("team:NoSchedule",)), "left out, tainted team: --tolerate team"),
        (gpu_node("x", taints=("team:NoExecute",)), "left out, tainted team"),
        (gpu_node("x", product=""), "left out, no label nvidia.com/gpu.product"),
        (gpu_node("x", "NVIDIA-A10"), "left out, GPU NVIDIA-A10 is not known: describe it"),
        (gpu_node("x", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"), "MIG-1g.10gb is not known"),
        (gpu_node("x", gpus=0), "left out, no nvidia.com/gpu can be allocated there"),
    ],
)
def test_a_node_that_cannot_be_used_is_left_out_with_a_note(node: dict, why: str) -> None:
    cluster, [note] = read([node, gpu_node("good")])
    assert [each.name for each in cluster.nodes] == ["good"]
    assert note.startswith("x: ")
    assert why in note
    with pytest.raises(ConfigError, match=r"no node has a free nvidia\.com/gpu: x: ") as raised:
        read([node])
    assert why in str(raised.value)


def test_a_node_whose_gpus_are_all_in_use_is_left_out() -> None:
    cluster, notes = read(
        [gpu_node("a"), gpu_node("b")], gpu_pod("p", "a", 8), gpu_pod("q", "b", 1)
    )
    assert {node.name: node.gpus for node in cluster.nodes} == {"b": 7}
    assert notes == [
        "a: left out, pods have asked for all GPUs",
        "b: with GPUs that pods have asked for already",
    ]


def test_taints_that_keep_no_pod_with_gpus_away() -> None:
    node = gpu_node("n", taints=("nvidia.com/gpu:NoSchedule", "soft:PreferNoSchedule"))
    assert free([node]) == {"n": 8}
    tainted = gpu_node("n", taints=("team:NoSchedule",))
    cluster, notes = read([tainted], tolerated=frozenset({"team"}))
    assert (cluster.gpus, notes) == (8, [])


def test_many_nodes_make_one_note() -> None:
    nodes = [gpu_node(f"n{index}", cordoned=True) for index in range(9)]
    _, notes = read([*nodes, gpu_node("good")])
    assert notes == ["n0, n1, n2, n3, n4 and 4 more: left out, cordoned"]


def test_a_memory_of_another_size_is_another_kind(tmp_path) -> None:
    cluster, _ = read([gpu_node("a", memory_mib=96 * 1024), gpu_node("b")])
    assert [node.gpu.name for node in cluster.nodes] == ["H100-SXM5-80GB+96GiB", "H100-SXM5-80GB"]
    write_cluster(cluster, tmp_path / "cluster.yaml")
    assert read_cluster(tmp_path / "cluster.yaml").kinds == cluster.kinds


def test_a_cluster_without_gpus_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^no node has a free nvidia\.com/gpu$"):
        read([{"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}}])
