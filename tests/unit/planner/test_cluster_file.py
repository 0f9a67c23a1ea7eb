"""Clusters as YAML files: what is read, what is written, and what every mistake is called."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from plans import clusters

from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.cluster_file import read_cluster, write_cluster

ROOT = Path(__file__).parents[3]
CPU = "{name: cpu-core, memory_gib: 4, tflops: 0.05, memory_gbs: 10, link_gbs: 5}"
NODE = "name: a, gpu: h100, gpus: 8, network_gbps: 400"


def read(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return read_cluster(path)


def one(tmp_path: Path, node: str, rest: str = "") -> Node:
    """The first node of a cluster with this one entry."""
    return read(tmp_path, f"version: 1\nnodes: [{{{node}}}]\n{rest}").nodes[0]


def test_a_count_makes_so_many_nodes_that_are_alike(tmp_path: Path) -> None:
    cluster = read(
        tmp_path,
        f"version: 1\nlink_latency_ms: 0.5\ngpus: [{CPU}]\nnodes:\n"
        "- {name: a, count: 3, gpu: H100, gpus: 8, network_gbps: 400, rack: r1, zone: z1,"
        " gpu_hour_price: 2.5}\n"
        "- {name: b, gpu: cpu-core, gpus: 2, network_gbps: 10}\n"
        "racks: {r1: {oversubscription: 4}}\nzones: {z1: {uplink_gbps: 800}}\n",
    )
    assert [node.name for node in cluster.nodes] == ["a-0", "a-1", "a-2", "b"]
    first, last = cluster.nodes[0], cluster.nodes[-1]
    assert first == Node("a-0", find_gpu("h100"), 8, 50e9, "r1", "z1", 2.5)
    assert (last.gpu.memory_bytes, last.gpu.flops, last.rack) == (4 << 30, 0.05e12, "")
    assert cluster.link_latency_s == 0.5e-3
    assert cluster.rack_uplinks == {"r1": 3 * 50e9 / 4}
    assert cluster.zone_uplinks == {"z1": 100e9}


def test_what_a_node_overrides_is_another_kind_of_gpu(tmp_path: Path) -> None:
    cluster = read(
        tmp_path,
        f"version: 1\nnodes:\n- {{{NODE}}}\n- {{name: b, gpu: h100, gpus: 8, network_gbps: 400,"
        " memory_gib: 64, intra_node_gbs: 32.5, link_shared: true}\n",
    )
    assert list(cluster.kinds) == ["H100-SXM5-80GB", "H100-SXM5-80GB+64GiB+link32.5+shared"]
    other = cluster.nodes[1].gpu
    assert (other.memory_bytes, other.link_bytes_per_s, other.link_shared) == (
        64 << 30,
        32.5e9,
        True,
    )
    assert other.flops == find_gpu("h100").flops


def test_an_override_that_changes_nothing_makes_no_other_kind(tmp_path: Path) -> None:
    node = one(tmp_path, f"{NODE}, intra_node_gbs: 450, link_shared: false")
    assert node.gpu == find_gpu("h100")


def test_a_described_kind_replaces_the_one_of_the_catalogue(tmp_path: Path) -> None:
    kind = CPU.replace("cpu-core", "H100-SXM5-80GB")
    for name in ("h100", "H100-SXM5-80GB"):
        node = one(tmp_path, NODE.replace("h100", name), f"gpus: [{kind}]")
        assert node.gpu.memory_bytes == 4 << 30


def test_a_node_that_is_alone_needs_no_network(tmp_path: Path) -> None:
    node = one(tmp_path, "name: a, gpu: h100, gpus: 8")
    assert node.network_bytes_per_s == math.inf


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodes: [", "cluster.yaml, line "),
        ("", "cluster.yaml: is None; it must be a mapping with the keys version"),
        ("nodes: [{NODE}]", "version: is missing"),
        ("version: 2\nnews: 3", "version: is 2; this pdserve reads version 1"),
        ("version: true\nnodes: [{NODE}]", "version: is True"),
        ("version: 1\nnode: []", "node: is not a key here; keys are version, link_latency_ms"),
        ("version: 1", "nodes: is missing"),
        ("version: 1\nnodes: []", "nodes: must be a list of at least one"),
        ("version: 1\nnodes: [a]", "nodes[0]: is 'a'"),
        ("version: 1\nnodes: [{NODE, gpu: l4}]", "the key 'gpu' is there twice"),
        ("version: 1\nnodes: [{NODE, memory: 3}]", "nodes[0].memory: is not a key here"),
        ("version: 1\nnodes: [{NODE, 3: 3}]", "nodes[0].3: a key must be a text"),
        ("version: 1\nnodes: [{NODE, count: 0}]", "nodes[0].count: is 0"),
        ("version: 1\nnodes: [{NODE, count: 1.5}]", "nodes[0].count: is 1.5"),
        ("version: 1\nnodes: [{NODE, count: true}]", "nodes[0].count: is True"),
        ("version: 1\nnodes: [{NODE, count: 1000000}]", "nodes[0].count: is 1000000"),
        ("version: 1\nnodes: [{NODE, rack: 1}]", "nodes[0].rack: is 1; it must be a text"),
        ("version: 1\nnodes: [{NODE, zone: ''}]", "nodes[0].zone: is ''"),
        ("version: 1\nnodes: [{NODE, gpu_hour_price: -1}]", "nodes[0].gpu_hour_price: is -1"),
        ("version: 1\nnodes: [{NODE, gpu_hour_price: .nan}]", "nodes[0].gpu_hour_price: is nan"),
        ("version: 1\nnodes: [{NODE, memory_gib: .inf}]", "nodes[0].memory_gib: is inf"),
        ("version: 1\nnodes: [{NODE, intra_node_gbs: 0}]", "nodes[0].intra_node_gbs: is 0"),
        ("version: 1\nnodes: [{NODE, link_shared: 1}]", "nodes[0].link_shared: is 1"),
        ("version: 1\nnodes: [{gpu: h100}]", "nodes[0].name: is missing"),
        ("version: 1\nnodes: [{name: 7}]", "nodes[0].name: is 7; it must be a text that is"),
        ("version: 1\nnodes: [{name: a, gpus: 8}]", "nodes[0].gpu: is missing"),
        ("version: 1\nnodes: [{name: a, gpu: h1}]", "nodes[0].gpu: GPU 'h1' is not known"),
        ("version: 1\nnodes: [{name: a, gpu: h100, gpus: 0}]", "nodes[0].gpus: is 0"),
        (
            "version: 1\nnodes: [{name: a, gpu: h100, gpus: 1, network_gbps: -4}]",
            "nodes[0].network_gbps: is -4",
        ),
        (
            "version: 1\nnodes: [{name: a, gpu: h100, gpus: 1, network_gbps: '400'}]",
            "nodes[0].network_gbps: is '400'",
        ),
        (
            "version: 1\nnodes: [{NODE}, {name: b, gpu: h100, gpus: 1}]",
            "nodes[1].network_gbps: is missing; only a cluster of one node",
        ),
        ("version: 1\nnodes: [{NODE}, {NODE}]", "nodes[1].name: 'a' is that of nodes[0] too"),
        (
            "version: 1\nnodes: [{NODE}, {name: a-1, gpu: l4, gpus: 1, network_gbps: 9},"
            " {NODE, count: 2}]",
            "nodes[2].name: 'a-1' is that of nodes[1] too",
        ),
        ("version: 1\nlink_latency_ms: -1\nnodes: [{NODE}]", "link_latency_ms: is -1"),
        ("version: 1\nlink_latency_ms: .nan\nnodes: [{NODE}]", "link_latency_ms: is nan"),
        ("version: 1\ngpus: CPU\nnodes: [{NODE}]", "gpus: must be a list"),
        ("version: 1\ngpus: [{name: x}]\nnodes: [{NODE}]", "gpus[0].memory_gib: is missing"),
        ("version: 1\ngpus: [CPU, CPU]\nnodes: [{NODE}]", "gpus[1].name: 'cpu-core' is described"),
        (
            "version: 1\ngpus: [{name: x, memory_gib: 4, tflops: -1}]\nnodes: [{NODE}]",
            "gpus[0].tflops: is -1",
        ),
        ("version: 1\ngpus: [{name: x, cores: 4}]\nnodes: [{NODE}]", "gpus[0].cores: is not a key"),
        ("version: 1\nnodes: [{NODE}]\nracks: [r1]", "racks: is ['r1']"),
        ("version: 1\nnodes: [{NODE}]\nracks: {r1: {uplink_gbps: 9}}", "racks.r1: no node is in"),
        ("version: 1\nnodes: [{NODE}]\nzones: {z1: {uplink_gbps: 9}}", "zones.z1: no node is in"),
        ("version: 1\nnodes: [{NODE, rack: r}]\nracks: {r: 4}", "racks.r: is 4"),
        ("version: 1\nnodes: [{NODE, rack: r}]\nracks: {r: {}}", "racks.r: must have one of"),
        (
            "version: 1\nnodes: [{NODE, rack: r}]\n"
            "racks: {r: {uplink_gbps: 9, oversubscription: 2}}",
            "racks.r: must have one of",
        ),
        (
            "version: 1\nnodes: [{NODE, rack: r}]\nracks: {r: {oversubscription: 0.5}}",
            "racks.r.oversubscription: is 0.5",
        ),
        (
            "version: 1\nnodes: [{NODE, rack: r}]\nracks: {r: {uplink_gbps: 0}}",
            "racks.r.uplink_gbps: is 0",
        ),
        (
            "version: 1\nnodes: [{name: a, gpu: l4, gpus: 1, rack: r}]\n"
            "racks: {r: {oversubscription: 2}}",
            "racks.r: oversubscription needs the network_gbps",
        ),
        (
            "version: 1\nnodes: [{NODE, rack: r, zone: z1}, {name: b, gpu: l4, gpus: 1,"
            " network_gbps: 9, rack: r, zone: z2}]\nracks: {r: {oversubscription: 2}}",
            "racks.r: its nodes are in z1 and z2",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    text = text.replace("NODE", NODE).replace("CPU", CPU)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert "cluster.yaml" in str(caught.value)
    assert named in str(caught.value)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"version: 1\nnodes: [{{name: {list(range(1000))}}}]")
    assert len(str(caught.value)) < 300


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_cluster(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"no/c\.yaml: No such file"):
        write_cluster(Cluster([Node("a", find_gpu("l4"), 1, 1e9)]), tmp_path / "no/c.yaml")


@given(clusters())
def test_a_cluster_that_is_written_is_read_back(cluster: Cluster) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "cluster.yaml")
        write_cluster(cluster, path)
        assert read_cluster(path) == cluster


def test_overrides_and_lone_nodes_are_read_back(tmp_path: Path) -> None:
    cluster = read(tmp_path, "version: 1\nnodes: [{name: a, gpu: h100, gpus: 8, memory_gib: 79.3}]")
    write_cluster(cluster, tmp_path / "again.yaml")
    assert read_cluster(tmp_path / "again.yaml") == cluster


def test_kinds_that_share_a_name_cannot_be_written(tmp_path: Path) -> None:
    one, other = find_gpu("l4"), find_gpu("l40s")
    cluster = Cluster(
        [Node("a", one, 1, 1e9), Node("b", type(one)(one.name, *_rest(other)), 1, 1e9)]
    )
    with pytest.raises(ConfigError, match="node b: its L4 differs"):
        write_cluster(cluster, tmp_path / "c.yaml")


def _rest(gpu: object) -> list[object]:
    return [getattr(gpu, name) for name in gpu.__slots__ if name != "name"]


def test_the_page_on_clusters_shows_files_that_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "clusters.md").read_text("utf-8")
    examples = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    assert examples
    for text in examples:
        assert read(tmp_path, text).gpus > 0
