"""What the chart would run in containers runs here: the same arguments, environment and probes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rendering import NAMESPACE, Manifest, container, example, pod_templates, render

from pdserve.cli.service_process import SERVING
from pdserve.cli.tethered import command
from pdserve.options import PREFIX
from pdserve.rpc.channel import open_channel
from tests.doubles.issued_certificates import Authority
from tests.doubles.kube.server import KubeServer

TIMEOUT_S = 100.0
PROBE_S = 5.0
# Pods have addresses of their own, as in a cluster; none that another run of the test has.
LOOPBACK = f"127.{10 + os.getpid() % 200}.{os.getpid() // 200 % 250}"
SERVER_NAME = "pdserve.internal"


@dataclass(frozen=True, slots=True)
class Node:
    """What a kubelet knows: which address a pod has, and where Secrets are mounted."""

    mounts: Path
    kubeconfig: Path

    def arguments(self, pod: Manifest, ip: str) -> list[str]:
        """The arguments of the pod's container; it listens on its own address alone."""

        def here(argument: str) -> str:
            if argument == "--host=0.0.0.0":
                return f"--host={ip}"
            return argument.replace("/etc/pdserve", str(self.mounts))

        return [here(each) for each in container(pod)["args"]]

    def environment(self, pod: Manifest, name: str, ip: str) -> dict[str, str]:
        """The environment of the pod's container."""
        downward = {"metadata.name": name, "status.podIP": ip}
        ours = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        theirs = {
            each["name"]: each.get("value") or downward[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in container(pod).get("env", ())
        }
        return {**ours, **theirs, "KUBECONFIG": str(self.kubeconfig)}


async def asked(probe: Mapping[str, Any], pod: Manifest, ip: str) -> bool:
    """What a kubelet would learn from a probe."""
    if "grpc" in probe:
        request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
        async with open_channel(f"{ip}:{probe['grpc']['port']}") as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=PROBE_S)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == SERVING)
    ports = {each["name"]: each["containerPort"] for each in container(pod)["ports"]}
    url = f"http://{ip}:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return 200 <= response.status < 400
    except aiohttp.ClientError:
        return False


async def passes(name: str, pod: Manifest, ip: str, process: asyncio.subprocess.Process) -> None:
    """Returns once the pod's probe of that name passes."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await asked(container(pod)[name], pod, ip):
            assert process.returncode is None, f"{container(pod)['args'][0]} has ended"
            await asyncio.sleep(0.2)


@asynccontextmanager
async def running(
    words: list[str], environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is told to stop at the end, and ends as a container should."""
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def program(pod: Manifest, words: list[str], *, real: bool) -> list[str]:
    """`pdserve WORDS`, or an instance that has no model to load."""
    if real or words[0] not in ("prefill", "decode"):
        return list(command(*words))
    return [sys.executable, "-m", "tests.doubles.shaped_instance", *words]


def secret(folder: Path) -> None:
    """The files of a Secret with certificates."""
    issued = Authority().issue(folder, SERVER_NAME)
    for name, path in (("tls.crt", issued.cert), ("tls.key", issued.key), ("ca.crt", issued.ca)):
        (folder / name).write_bytes(path.read_bytes())


@pytest.mark.model
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls-colocated"])
async def test_every_container_starts_serves_and_ends(tls: bool, tmp_path: Path) -> None:
    values = {**example("cpu")}
    if tls:  # and one process less to start
        values["prefill"] = {"pools": []}
        values["router"] = {**values["router"], "config": {"colocated": True}}
        values["tls"] = {"links": {"secret": "links", "serverName": SERVER_NAME}}
        secret(tmp_path / "link-tls")
    pods = pod_templates(render(values))
    client = pods.pop("rel-pdserve-test")
    addresses = {name: f"{LOOPBACK}.{number}" for number, name in enumerate(pods, 1)}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(KubeServer())
        server.store.create("Namespace", {"metadata": {"name": NAMESPACE}})
        node = Node(tmp_path, server.kubeconfig(tmp_path / "kubeconfig"))
        processes = {}
        for name, pod in pods.items():
            ip = addresses[name]
            words = program(pod, node.arguments(pod, ip), real=not tls)
            environment = node.environment(pod, name, ip)
            processes[name] = await stack.enter_async_context(running(words, environment))
            server.store.create("Pod", pod_object(name, pod, ip))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for name, pod in pods.items():
                await passes(probe, pod, addresses[name], processes[name])
        words = [
            each.replace("rel-pdserve-router:", f"{addresses['rel-pdserve-router']}:")
            for each in node.arguments(client, "")
        ]
        test = await asyncio.create_subprocess_exec(
            *command(*words), stdout=asyncio.subprocess.PIPE, env=node.environment(client, "", "")
        )
        said, _ = await test.communicate()
        assert test.returncode == 0
        assert tls or b"Paris" in said


def pod_object(name: str, template: Manifest, ip: str) -> Manifest:
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, **template["metadata"]},
        "spec": {"containers": [container(template)]},
        "status": {"phase": "Running", "podIP": ip},
    }
