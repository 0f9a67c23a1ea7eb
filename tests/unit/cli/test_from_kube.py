"""`--from-kube`, against an API server over HTTP."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pdserve.cli.cluster_flags import add_cluster_flags, load_cluster
from pdserve.cli.main import main
from pdserve.errors import ConfigError, PdserveError
from pdserve.planner.cluster import Cluster
from pdserve.planner.cluster_file import read_cluster
from tests.doubles.kube.access import Rule
from tests.doubles.kube.server import KubeServer
from tests.unit.planner.kube_nodes_of import gpu_node, gpu_pod


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeServer]:
    async with KubeServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        rack = {"topology.kubernetes.io/rack": "r1", "example.com/row": "row-7"}
        for node in (
            gpu_node("a100-0", "NVIDIA-A100-SXM4-80GB", 4, labels=rack),
            gpu_node("h100-0", labels=rack),
            gpu_node("h100-1", taints=("team:NoSchedule",)),
            gpu_node("l40s-0", "NVIDIA-L40S", 4, cordoned=True),
        ):
            server.store.create("Node", node)
        server.store.create("Pod", gpu_pod("other", "h100-0", 2))
        yield server


async def load(*words: str) -> Cluster:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_cluster_flags(parser)
    # The flags are read where no event loop runs, as on the command line.
    return await asyncio.to_thread(load_cluster, parser.parse_args(words))


async def test_the_free_gpus_of_the_current_context(
    server: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = await load("--from-kube", "--network-gbps=400", "--gpu-hour-price=3")
    assert [(node.name, node.gpu.name, node.gpus, node.rack) for node in cluster.nodes] == [
        ("a100-0", "A100-SXM4-80GB", 4, "r1"),
        ("h100-0", "H100-SXM5-80GB", 6, "r1"),
    ]
    assert {node.network_bytes_per_s for node in cluster.nodes} == {50e9}
    assert {node.gpu_hour_price for node in cluster.nodes} == {3.0}
    told = capsys.readouterr().err
    assert "h100-1: left out, tainted team: --tolerate team" in told
    assert "l40s-0: left out, cordoned" in told
    assert "h100-0: with GPUs that pods have asked for already" in told
    assert {(each.verb, each.resource) for each in server.access_log} == {
        ("list", "nodes"),
        ("list", "pods"),
    }


async def test_context_label_and_taints_may_be_named(server: KubeServer) -> None:
    words = ("--network-gbps=25", "--rack-label=example.com/row", "--tolerate=team")
    cluster = await load("--from-kube=test", *words)
    assert {node.name: node.rack for node in cluster.nodes} == {
        "a100-0": "row-7",
        "h100-0": "row-7",
        "h100-1": "",
    }
    with pytest.raises(ConfigError, match=r"no access to Kubernetes: .*nowhere"):
        await load("--from-kube=nowhere", *words)


async def test_a_network_must_be_named_for_several_nodes(server: KubeServer) -> None:
    with pytest.raises(ConfigError, match="no --network-gbps: 2 nodes"):
        await load("--from-kube")


async def test_pods_that_may_not_be_listed_are_noted(
    server: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults.refused.append(Rule(resources=("pods",)))
    cluster = await load("--from-kube", "--network-gbps=400")
    assert cluster.gpus == 12
    assert "GPUs in use are not known, all are taken for free" in capsys.readouterr().err


async def test_a_server_that_refuses_or_is_away_is_told(server: KubeServer) -> None:
    server.faults.refused.append(Rule(resources=("nodes",)))
    with pytest.raises(PdserveError, match="status 403"):
        await load("--from-kube", "--network-gbps=400")
    await server.stop()
    with pytest.raises(PdserveError, match="Cannot connect"):
        await load("--from-kube", "--network-gbps=400")


async def test_the_cluster_is_written_whatever_comes_of_the_plan(
    server: KubeServer, tmp_path: Path
) -> None:
    out = tmp_path / "plan"
    words = (
        *("plan", "--profile", "opt-13b-a100-80g-distserve", "--out", str(out)),
        *("--from-kube", "--network-gbps", "100", "--prompt", "500", "--output", "100"),
        *("--requests", "10", "--ttft-ms", "500", "--seeds", "0"),
    )
    assert await asyncio.to_thread(main, list(words)) == 2
    assert read_cluster(out / "cluster.yaml") == await load("--from-kube", "--network-gbps=100")
