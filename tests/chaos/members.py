"""The members of a cluster under test: a process, a proxy before it, and ways to ask it."""

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from pdserve.cli.reserved_port import ReservedPort
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import (
    decode_pb2_grpc,
    prefill_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    types_pb2,
)
from tests.chaos.cells import Victim
from tests.chaos.entries import run_instance, run_router
from tests.chaos.polling import until
from tests.chaos.process import Process
from tests.doubles.controls import Controls
from tests.doubles.shaped_instance import Shape
from tests.doubles.tcp_proxy import TcpProxy

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S, CALL_TIMEOUT_S = 60.0, 5.0


class RouterMember:
    """The router: clients reach it through `proxy`, the test also directly."""

    name = "router"
    role = Victim.ROUTER

    def __init__(self, config: RouterConfig, folder: Path) -> None:
        self._port = ReservedPort(LOOPBACK)
        config = replace(config, name=self.name, port=self._port.number)
        self.process = Process(folder / f"{self.name}.log", run_router, config)
        self.proxy = TcpProxy(self._port.number)
        self._channel = open_channel(f"{LOOPBACK}:{self._port.number}")

    async def start(self) -> None:
        """Starts the process; it is not up yet."""
        self.process.start()

    async def status(self) -> router_pb2.GetClusterResponse:
        """How it sees the cluster; raises `AioRpcError` where it does not answer."""
        stub = router_pb2_grpc.InferenceStub(self._channel)
        return await stub.GetCluster(router_pb2.GetClusterRequest(), timeout=CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Ends the process and every connection."""
        await self.process.kill()
        await self.proxy.close()
        await self._channel.close()
        self._port.release()


class InstanceMember:
    """An instance: its peers reach it through `proxy`, the test also directly.

    `controls` speak to it as long as it lives.
    """

    def __init__(self, role: Victim, name: str, config: InstanceConfig, folder: Path) -> None:
        self.role = role
        self.name = name
        self._control = folder / f"{name}.sock"
        self._port = ReservedPort(LOOPBACK)
        config = replace(config, name=name, port=self._port.number)
        shape = Shape(control=str(self._control))
        log = folder / f"{name}.log"
        self.process = Process(log, run_instance, str(role), config, shape)
        self.proxy = TcpProxy(self._port.number)
        self.controls = Controls(self._control)
        self._channel = open_channel(f"{LOOPBACK}:{self._port.number}")

    async def start(self) -> None:
        """Starts the process, and takes control of it; it is not up yet."""
        self._control.unlink(missing_ok=True)
        self.process.start()
        await until(self._listens, START_TIMEOUT_S)
        await self.controls.connect()

    async def _listens(self) -> bool:
        return self._control.exists()

    async def report(self) -> types_pb2.LoadReport:
        """Its load, asked of itself; raises `AioRpcError` where it does not answer."""
        prefill = self.role is Victim.PREFILL
        stub = prefill_pb2_grpc.PrefillStub if prefill else decode_pb2_grpc.DecodeStub
        call = stub(self._channel).WatchLoad(types_pb2.WatchLoadRequest(), timeout=CALL_TIMEOUT_S)
        try:
            async for report in call:
                return report
        finally:
            call.cancel()
        raise AssertionError(f"{self.name} reports nothing")

    async def close(self) -> None:
        """Ends the process and every connection."""
        await self.controls.close()
        await self.process.kill()
        await self.proxy.close()
        await self._channel.close()
        self._port.release()


Member: TypeAlias = RouterMember | InstanceMember
