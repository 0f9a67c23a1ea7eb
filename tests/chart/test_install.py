"""The chart in a cluster: an API server over HTTP, the real Helm, and the router's discovery."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from everything import SETS
from rendering import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    RELEASE,
    VERSIONS,
    Manifest,
    container,
    helm,
    of_kind,
    options,
    pod_templates,
    render,
)

from pdserve.cli.main import main
from pdserve.cluster.instance import Role
from pdserve.cluster.source import make_discovery
from pdserve.config import RouterConfig
from pdserve.planner.plan_file import read_plan
from tests.doubles.kube.access import Rule
from tests.doubles.kube.server import KubeServer
from tests.unit.cluster.pods import members_of
from tests.unit.planner.kube_nodes_of import gpu_node

EXTENSIONS = ("LeaderWorkerSet", "PodMonitor", "ScaledObject")
KINDS = (
    *("Deployment", "Service", "ServiceAccount", "Role", "RoleBinding", "ClusterRole"),
    *("ClusterRoleBinding", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", *EXTENSIONS),
)
ROUTER = "router"


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer(EXTENSIONS) as server:
        server.store.create("Namespace", {"metadata": {"name": NAMESPACE}})
        yield server


class Release:
    """The chart as a release in that cluster, by one Helm."""

    def __init__(self, server: KubeServer, version: int, folder: Path) -> None:
        self._server = server
        self._version = version
        config = server.kubeconfig(folder / "kubeconfig")
        self._flags = (f"--kubeconfig={config}", f"--namespace={NAMESPACE}")
        self._environ = {"HOME": str(folder)}

    async def run(self, command: str, *arguments: str | Path) -> str:
        """What Helm prints."""
        flags = (command, RELEASE, *arguments, *self._flags)
        return await asyncio.to_thread(helm, self._version, *flags, environ=self._environ)

    def objects(self) -> dict[tuple[str, str], Manifest]:
        """What there is of the release, by kind and name."""
        found = (each for kind in KINDS for each in self._server.store.list(kind))
        return {
            (kind_of(each), each["metadata"]["name"]): each
            for each in found
            if each["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
        }


def kind_of(manifest: Manifest) -> str:
    return str(manifest["kind"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_is_installed_upgraded_and_removed(
    server: KubeServer, version: int, tmp_path: Path
) -> None:
    release = Release(server, version, tmp_path)
    values = f"--values={EXAMPLES['mixed-a100-l40s']}"
    said = await release.run("install", CHART, values)
    assert "curl" in said
    assert "helm -n llm test rel" in said
    assert "Authorization: Bearer" in said
    first = release.objects()
    assert {kind for kind, _ in first} == set(KINDS) - {"LeaderWorkerSet"}
    prefill = first["Deployment", "rel-pdserve-l40s"]["spec"]
    assert prefill["replicas"] == 6

    await release.run(
        "upgrade", CHART, values, "--set=prefill.pools[0].replicas=7,dashboard.enabled=false"
    )
    second = release.objects()
    assert set(first) - set(second) == {("ConfigMap", "rel-pdserve-dashboard")}
    prefill = second["Deployment", "rel-pdserve-l40s"]["spec"]
    assert prefill["replicas"] == 7
    assert prefill["template"] == first["Deployment", "rel-pdserve-l40s"]["spec"]["template"]

    await release.run("uninstall")
    assert release.objects() == {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_an_autoscaler_has_chosen_stays(
    server: KubeServer, version: int, tmp_path: Path
) -> None:
    release = Release(server, version, tmp_path)
    scaled = ("--set=decode.pools[0].name=d", "--set=instances.autoscaling.enabled=true")

    def replicas() -> int:
        return int(release.objects()["Deployment", "rel-pdserve-d"]["spec"]["replicas"])

    await release.run("install", CHART, scaled[0], "--set=decode.pools[0].replicas=3")
    # Turned on, it leaves what runs alone.
    await release.run("upgrade", CHART, *scaled, "--set=decode.pools[0].replicas=3")
    assert replicas() == 3
    found = server.store.get("Deployment", "rel-pdserve-d", NAMESPACE)
    # What an autoscaler would do.
    server.store.update("Deployment", {**found, "spec": {**found["spec"], "replicas": 4}})
    await release.run("upgrade", CHART, *scaled, "--set=decode.pools[0].replicas=2")
    assert replicas() == 4


@pytest.mark.parametrize("version", VERSIONS)
async def test_its_test_sends_a_request(server: KubeServer, version: int, tmp_path: Path) -> None:
    release = Release(server, version, tmp_path)
    await release.run("install", CHART)
    testing = asyncio.create_task(release.run("test"))
    name = "rel-pdserve-test"
    await server.store.until("Pod", lambda: server.store.has("Pod", name, NAMESPACE))
    pod = server.store.get("Pod", name, NAMESPACE)
    assert container(pod)["args"][:2] == ["generate", "--router=rel-pdserve-router:7700"]
    # What the kubelet would do.
    server.store.update("Pod", {**pod, "status": {"phase": "Succeeded"}})
    assert "Succeeded" in await testing


async def test_a_plan_that_was_made_for_the_cluster_is_installed_in_it(
    server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "admin")))
    node = gpu_node("gpu-a", "NVIDIA-A100-SXM4-80GB", 2, taints=("team:NoSchedule",))
    server.store.create("Node", node)
    plan = (
        *("plan", "--from-kube", "--tolerate", "team", "--profile", "opt-13b-a100-80g-distserve"),
        *("--prompt", "500", "--output", "100", "--requests", "100", "--gpus", "2"),
        *("--ttft-ms", "2000", "--tpot-ms", "200", "--effort", "quick", "--seeds", "1"),
    )
    out = tmp_path / "plan"
    assert await asyncio.to_thread(main, [*plan, "--out", str(out)]) == 0

    release = Release(server, 4, tmp_path)
    flag = "--set=allowUnsupported=true"  # for plans of instances of two GPUs
    await release.run("install", CHART, f"--values={out / 'values.yaml'}", flag)
    planned = read_plan(out / "plan.yaml").instances
    deployments = [
        each["spec"]
        for (kind, name), each in release.objects().items()
        if kind == "Deployment" and not name.endswith("router")
    ]
    assert sum(each["replicas"] for each in deployments) == len(planned)
    for deployment in deployments:
        pod = deployment["template"]
        assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
        affinity = pod["spec"]["affinity"]["nodeAffinity"]
        assert '"gpu-a"' in json.dumps(affinity)
        assert {"key": "team", "operator": "Exists"} in pod["spec"]["tolerations"]
        gpus = container(pod)["resources"]["limits"]["nvidia.com/gpu"]
        assert gpus in {each.gpus for each in planned}


def running(manifests: list[Manifest]) -> list[Manifest]:
    """A pod of each template, as it would run."""
    addresses = (f"10.0.0.{number}" for number in count(1))
    return [
        {
            "metadata": {
                "name": name.translate({32: "-", 40: None, 41: None}),
                "namespace": NAMESPACE,
                "labels": template["metadata"]["labels"],
            },
            "spec": {"containers": [container(template)], "nodeName": "node-1"},
            "status": {"phase": "Running", "podIP": next(addresses)},
        }
        for name, template in pod_templates(manifests).items()
    ]


def rights(manifests: list[Manifest]) -> set[tuple[str, str, str]]:
    """Verb, group and resource of all that the router may do."""
    roles = of_kind(manifests, "Role") | of_kind(manifests, "ClusterRole")
    return {
        (verb, group, resource)
        for role in roles.values()
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("nodes", [True, False])
async def test_the_router_finds_all_instances_and_needs_exactly_its_rights(
    server: KubeServer, nodes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {**SETS["full"], "rbac": {"nodes": nodes}}
    manifests = render(values)
    rack = RouterConfig().rack_label
    labels = {rack: "r1", "nvidia.com/gpu.clique": "c1"}
    server.store.create("Node", {"metadata": {"name": "node-1", "labels": labels}})
    for pod in running(manifests):
        server.store.create("Pod", pod)
    if not nodes:
        server.faults.refused.append(Rule(resources=("nodes",), user=ROUTER))
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig", user=ROUTER)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    router = options(pod_templates(manifests)["rel-pdserve-router"])

    async with members_of(make_discovery(router["instances"], rack)) as members:
        await members.until(lambda: "watch" in {each.verb for each in server.access_log})
        found = {each.name: (each.role, each.topology.rack) for each in members.now}
    place = "r1" if nodes else ""
    assert found == {
        "rel-pdserve-p": (Role.PREFILL, place),
        "rel-pdserve-wide": (Role.PREFILL, place),
        "rel-pdserve-d": (Role.DECODE, place),
    }
    assert all(each.address.endswith(":7700") for each in members.now)
    used = {(each.verb, each.group, each.resource) for each in server.access_log}
    assert used - {("get", "", "nodes")} == rights(manifests) - {("get", "", "nodes")}
    assert (("get", "", "nodes") in rights(manifests)) == nodes


def test_without_kubernetes_discovery_the_router_has_no_rights_at_all() -> None:
    manifests = render({"router": {"discovery": "dns"}})
    assert rights(manifests) == set()
    router = pod_templates(manifests)["rel-pdserve-router"]
    assert options(router)["instances"] == (
        "dns:prefill=rel-pdserve-prefill.llm.svc:7700,decode=rel-pdserve-decode.llm.svc:7700"
    )
    services = of_kind(manifests, "Service")
    for role in ("prefill", "decode"):
        assert services[f"rel-pdserve-{role}"]["spec"]["clusterIP"] == "None"
