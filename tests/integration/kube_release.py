"""A release as Kubernetes would run it: processes on loopback, and a pod of the test's API server
for each of them that is an instance.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from grpc import aio

from pdserve.cli.reserved_port import ReservedPort
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc
from tests.chaos.entries import run_instance, run_router
from tests.chaos.polling import until
from tests.chaos.process import Process
from tests.doubles.kube.server import KubeServer
from tests.doubles.shaped_instance import Shape
from tests.unit.cluster.pods import pod

LOOPBACK = "127.0.0.1"
RELEASE = {"app.kubernetes.io/instance": "test"}
SELECTOR = "app.kubernetes.io/instance=test,pdserve.io/role"
START_TIMEOUT_S, CALL_TIMEOUT_S, GRACE_S = 60.0, 5.0, 30


class KubeRelease:
    """Instances come and go by `start` and `remove`; the router reads who is there by itself."""

    def __init__(self, server: KubeServer, config: InstanceConfig, folder: Path) -> None:
        self.pods: dict[str, Process] = {}
        self._server = server
        self._config = config
        self._folder = folder
        self._kubeconfig = server.kubeconfig(folder / "kubeconfig")
        self._ports = AsyncExitStack()
        self._router: Process | None = None
        self.channel: aio.Channel | None = None

    async def start_router(self, config: RouterConfig) -> aio.Channel:
        """The router, which is up when an instance of each phase is."""
        port = self._reserve()
        config = replace(config, instances=f"kube:{SELECTOR}", name="router", port=port)
        self._router = Process(
            self._folder / "router.log", run_kube_router, self._kubeconfig, config
        )
        self._router.start()
        self.channel = open_channel(f"{LOOPBACK}:{port}")
        return self.channel

    def start(self, role: str, name: str, shape: Shape) -> None:
        """A pod and, as in a cluster, some time after that an instance which listens there."""
        port = self._reserve()
        config = replace(self._config, name=name, port=port)
        self.pods[name] = Process(self._folder / f"{name}.log", run_instance, role, config, shape)
        self.pods[name].start()
        self._server.store.create("Pod", pod(name, role, port=port, node="n1", **RELEASE))

    async def until_up(self, *names: str) -> None:
        """Returns once the router gives these instances requests."""

        async def up() -> bool:
            states = {each.name: each.state for each in await self._instances()}
            return all(states.get(name) == "up" for name in names)

        await until(up, START_TIMEOUT_S)

    async def remove(self, name: str) -> None:
        """As the kubelet ends a pod: it is marked, told to stop, and gone when it has stopped."""
        self._server.store.delete("Pod", name, grace_s=GRACE_S)
        process = self.pods.pop(name)
        process.signal(signal.SIGTERM)
        await process.exited()
        assert process.exit_code == 0, (self._folder / f"{name}.log").read_text()[-2000:]
        self._server.store.delete("Pod", name)

    async def members(self) -> set[str]:
        """The instances that the router knows of."""
        return {each.name for each in await self._instances()}

    async def close(self) -> None:
        """Ends every process."""
        for process in [*self.pods.values(), self._router]:
            if process is not None:
                await process.kill()
        if self.channel is not None:
            await self.channel.close()
        await self._ports.aclose()

    async def _instances(self) -> list[router_pb2.InstanceStatus]:
        assert self.channel is not None
        stub = router_pb2_grpc.InferenceStub(self.channel)
        answer = await stub.GetCluster(router_pb2.GetClusterRequest(), timeout=CALL_TIMEOUT_S)
        return list(answer.instances)

    def _reserve(self) -> int:
        port = ReservedPort(LOOPBACK)
        self._ports.callback(port.release)
        return port.number


@asynccontextmanager
async def kube_release(config: InstanceConfig, folder: Path) -> AsyncIterator[KubeRelease]:
    """A release without anybody yet, in a cluster of its own."""
    async with KubeServer() as server:
        release = KubeRelease(server, config, folder)
        try:
            yield release
        finally:
            await release.close()


def run_kube_router(kubeconfig: Path, config: RouterConfig) -> int:
    """A router that finds the cluster by `kubeconfig`."""
    os.environ["KUBECONFIG"] = str(kubeconfig)
    return run_router(config)
