"""kubectl works with the test API server as with any other."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.doubles.kube.rbac import account_name
from tests.doubles.kube.server import KubeServer
from tests.doubles.kube.tools import kube_tools

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: one, labels: {app: one}}
spec:
  replicas: 1
  selector: {matchLabels: {app: one}}
  template:
    metadata: {labels: {app: one}}
    spec:
      containers:
        - {name: main, image: first}
        - {name: side, image: second}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
spec: {nodeName: node, containers: [{name: main, image: none}]}
"""
ROLE = {"metadata": {"name": "reader"}, "rules": [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
]}  # fmt: skip
BINDING = {
    "metadata": {"name": "reader"},
    "roleRef": {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"},
    "subjects": [{"kind": "ServiceAccount", "name": "router", "namespace": "default"}],
}

Kubectl = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer(["LeaderWorkerSet"], tls=True) as server:
        yield server


@pytest.fixture
def kubectl(server: KubeServer, tmp_path: Path) -> Kubectl:
    binary = str(kube_tools().kubectl)

    async def run(*arguments: str, text: str = "", user: str = "admin") -> tuple[int, str]:
        """The exit status, and everything that was printed."""
        config = server.kubeconfig(tmp_path / "kubeconfig", user=user)
        process = await asyncio.create_subprocess_exec(
            binary, "--kubeconfig", str(config), *arguments,
            env={"HOME": str(tmp_path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate(text.encode())
        assert process.returncode is not None
        return process.returncode, output.decode()

    return run


def images(server: KubeServer) -> list[str]:
    containers = server.store.get("Deployment", "one")["spec"]["template"]["spec"]["containers"]
    return [container["image"] for container in containers]


async def test_apply_creates_and_then_changes_what_is_different(server, kubectl):
    assert await kubectl("apply", "-f", "-", text=DEPLOYMENT) == (
        0, "deployment.apps/one created\n",
    )  # fmt: skip
    assert await kubectl("apply", "-f", "-", text=DEPLOYMENT) == (
        0, "deployment.apps/one unchanged\n",
    )  # fmt: skip
    await kubectl("apply", "-f", "-", text=DEPLOYMENT.replace("second", "third"))
    assert images(server) == ["first", "third"]
    assert server.store.get("Deployment", "one")["metadata"]["generation"] == 2


async def test_an_unknown_field_is_refused_by_its_name(server, kubectl):
    code, output = await kubectl(
        "apply", "-f", "-", text=DEPLOYMENT.replace("image: sec", "img: s")
    )
    assert code
    assert 'unknown field "spec.template.spec.containers[1].img"' in output
    assert server.store.list("Deployment") == []


async def test_server_side_apply_refuses_what_another_owns(server, kubectl):
    apply = ("apply", "--server-side", "-f", "-")
    await kubectl(*apply, text=DEPLOYMENT)
    other = DEPLOYMENT.replace("replicas: 1", "replicas: 5")
    code, output = await kubectl(*apply, "--field-manager", "other", text=other)
    assert code
    assert 'conflict with "kubectl": .spec.replicas' in output
    code, _ = await kubectl(*apply, "--field-manager", "other", "--force-conflicts", text=other)
    assert not code
    assert server.store.get("Deployment", "one")["spec"]["replicas"] == 5


async def test_labels_scale_and_images_change(server, kubectl):
    await kubectl("apply", "-f", "-", text=DEPLOYMENT)
    await kubectl("label", "deployment", "one", "tier=back", "app-")
    await kubectl("scale", "deployment", "one", "--replicas", "7")
    await kubectl("set", "image", "deployment/one", "side=new")
    found = server.store.get("Deployment", "one")
    assert found["metadata"]["labels"] == {"tier": "back"}
    assert found["spec"]["replicas"] == 7
    assert images(server) == ["first", "new"]


async def test_get_prints_tables_and_objects(server, kubectl):
    await kubectl("apply", "-f", "-", text=POD)
    _, output = await kubectl("get", "pods", "-l", "app=one")
    heads, row = (line.split() for line in output.splitlines())
    assert heads == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row[:4] == ["one", "0/1", "Pending", "0"]
    _, output = await kubectl("get", "pod", "one", "-o", "json")
    assert json.loads(output)["spec"]["nodeName"] == "node"
    assert await kubectl("get", "lws") == (0, "No resources found in default namespace.\n")


async def test_a_pod_that_is_deleted_terminates_until_its_node_lets_it_go(server, kubectl):
    await kubectl("apply", "-f", "-", text=POD)
    await kubectl("delete", "pod", "one", "--wait=false", "--grace-period=5")
    _, output = await kubectl("get", "pods", "--no-headers")
    assert "Terminating" in output
    assert server.store.get("Pod", "one")["metadata"]["deletionGracePeriodSeconds"] == 5
    await kubectl("delete", "pod", "one", "--force", "--grace-period=0")
    assert server.store.list("Pod") == []


async def test_wait_follows_an_object_until_it_is_as_wished(server, kubectl):
    made = server.store.create("Pod", {"metadata": {"name": "one"}, "spec": {"containers": []}})
    waiting = asyncio.create_task(
        kubectl("wait", "pod/one", "--for=jsonpath={.status.phase}=Running", "--timeout=20s")
    )
    await server.until_watched()
    server.store.update("Pod", {**made, "status": {"phase": "Running"}})
    assert await waiting == (0, "pod/one condition met\n")


async def test_typed_creation_is_understood(server, kubectl):
    await kubectl("create", "namespace", "team")
    await kubectl("create", "configmap", "one", "--namespace", "team", "--from-literal", "a=b")
    assert server.store.get("ConfigMap", "one", "team")["data"] == {"a": "b"}
    await kubectl("delete", "namespace", "team")
    assert server.store.list("ConfigMap") == []


async def test_a_service_account_may_do_what_its_roles_say(server, kubectl):
    server.store.create("Role", ROLE)
    server.store.create("RoleBinding", BINDING)
    server.store.create("Pod", {"metadata": {"name": "one"}, "spec": {"containers": []}})
    router = account_name("default", "router")
    code, _ = await kubectl("get", "pods", user=router)
    assert not code
    for refused in (("delete", "pod", "one"), ("get", "nodes"), ("get", "pods", "-A")):
        code, output = await kubectl(*refused, user=router)
        assert code
        assert f'User "{router}" cannot' in output
    assert await kubectl("auth", "can-i", "list", "pods", user=router) == (0, "yes\n")
    code, output = await kubectl("auth", "can-i", "watch", "pods", user=router)
    assert (code, output) == (1, "no\n")
