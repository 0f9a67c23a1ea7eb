"""helm, of both majors, installs and upgrades in the test API server as in any other."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.kube.server import KubeServer
from tests.doubles.kube.tools import kube_tools

RELEASE = "helm.sh/release.v1"
CHART = "apiVersion: v2\nname: tiny\nversion: 0.1.0\n"
VALUES = "replicas: 1\nextra: true\nport: 50051\n"
TEMPLATE = """
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .Release.Name }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}
stringData:
  token: secret
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {app: tiny}
  ports: [{name: grpc, port: {{ .Values.port }}}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
  labels: {app: tiny}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: tiny}}
  template:
    metadata: {labels: {app: tiny}}
    spec:
      containers:
        - name: main
          image: none
          env:
            - {name: ALWAYS, value: "1"}
            {{- if .Values.extra }}
            - {name: EXTRA, value: "1"}
            {{- end }}
"""


class Helm:
    """One major of helm, pointed at a server."""

    def __init__(self, binary: Path, kubeconfig: Path, home: Path) -> None:
        self._command = [str(binary), "--kubeconfig", str(kubeconfig)]
        self._environment = {"HOME": str(home)}

    async def fail(self, *arguments: str) -> str:
        """What helm complains of."""
        code, _, complaint = await self._run(*arguments)
        assert code
        return complaint

    async def __call__(self, *arguments: str) -> str:
        code, output, complaint = await self._run(*arguments)
        assert not code, complaint
        return output

    async def _run(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), complaint.decode()


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer() as server:
        yield server


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, server: KubeServer, tmp_path: Path) -> Helm:
    binary = getattr(kube_tools(), request.param)
    return Helm(binary, server.kubeconfig(tmp_path / "kubeconfig"), tmp_path)


@pytest.fixture
def chart(tmp_path: Path) -> str:
    folder = tmp_path / "tiny"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(CHART)
    (folder / "values.yaml").write_text(VALUES)
    (folder / "templates" / "all.yaml").write_text(TEMPLATE)
    return str(folder)


def add_template(chart: str, name: str, text: str) -> None:
    Path(chart, "templates", name).write_text(text)


def environment(server: KubeServer) -> list[str]:
    deployment = server.store.get("Deployment", "one")
    return [
        entry["name"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    ]


def release(secret: dict[str, Any]) -> dict[str, Any]:
    """What helm stored about a release."""
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    stored: dict[str, Any] = json.loads(gzip.decompress(packed))
    return stored


async def test_a_release_comes_changes_and_goes(server, helm, chart):
    await helm("install", "one", chart)
    deployment = server.store.get("Deployment", "one")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["metadata"]["labels"] == {
        "app": "tiny",
        "app.kubernetes.io/managed-by": "Helm",
    }
    assert environment(server) == ["ALWAYS", "EXTRA"]
    assert server.store.get("Secret", "one")["data"] == {"token": "c2VjcmV0"}
    assert json.loads(await helm("list", "--output", "json"))[0]["status"] == "deployed"

    await helm("upgrade", "one", chart, "--set", "replicas=3,extra=false,port=50052")
    assert server.store.get("Deployment", "one")["spec"]["replicas"] == 3
    assert environment(server) == ["ALWAYS"]
    ports = server.store.get("Service", "one")["spec"]["ports"]
    assert [port["port"] for port in ports] == [50052]
    releases = [found for found in server.store.list("Secret") if found["type"] == RELEASE]
    assert [found["metadata"]["labels"]["status"] for found in releases] == [
        "superseded",
        "deployed",
    ]
    assert release(releases[1])["config"] == {"replicas": 3, "extra": False, "port": 50052}

    await helm("rollback", "one", "1")
    assert environment(server) == ["ALWAYS", "EXTRA"]

    await helm("uninstall", "one")
    for kind in ("Deployment", "Service", "Secret", "ServiceAccount"):
        assert server.store.list(kind) == []


async def test_a_release_goes_into_a_namespace_that_it_makes(server, helm, chart):
    await helm("install", "one", chart, "--namespace", "team", "--create-namespace")
    assert server.store.get("Deployment", "one", "team")
    assert "one" in await helm("list", "--all-namespaces", "--short")


TEST = """
apiVersion: v1
kind: Pod
metadata: {name: test, annotations: {helm.sh/hook: test}}
spec: {restartPolicy: Never, containers: [{name: main, image: none}]}
"""


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_test_ends_as_its_pod_does(server, helm, chart, phase):
    add_template(chart, "test.yaml", TEST)
    await helm("install", "one", chart)
    command = helm("test", "one") if phase == "Succeeded" else helm.fail("test", "one")
    running = asyncio.create_task(command)
    await server.store.until("Pod", lambda: server.store.has("Pod", "test"))
    # What the kubelet would do.
    server.store.update("Pod", {**server.store.get("Pod", "test"), "status": {"phase": phase}})
    assert phase.lower() in (await running).lower()


async def test_a_manifest_of_a_wrong_type_is_refused(server, helm, chart):
    complaint = await helm.fail("install", "one", chart, "--set", "replicas=many")
    assert "spec.replicas: 'many' is not of type" in complaint


async def test_a_release_does_not_take_over_what_is_there(server, helm, chart):
    server.store.create("ServiceAccount", {"metadata": {"name": "one"}})
    assert "invalid ownership metadata" in await helm.fail("install", "one", chart)


async def test_capabilities_are_those_of_the_cluster(server, helm, chart):
    asked = '{{ .Capabilities.KubeVersion }} {{ .Capabilities.APIVersions.Has "policy/v1" }} '
    asked += '{{ .Capabilities.APIVersions.Has "keda.sh/v1alpha1/ScaledObject" }}'
    head = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: asked}\n"
    add_template(chart, "asked.yaml", f"{head}data: {{found: {asked}}}\n")
    await helm("install", "one", chart)
    assert server.store.get("ConfigMap", "asked")["data"]["found"] == "v1.37.1 true false"
