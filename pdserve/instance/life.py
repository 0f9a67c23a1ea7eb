"""From start to exit of a prefill or decode process: load, serve, drain, stop."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pdserve import __version__, logs
from pdserve.config import InstanceConfig
from pdserve.engine.engine import KvListener
from pdserve.instance.control import Control
from pdserve.instance.engine_host import EngineHost
from pdserve.instance.instance import Instance, TransferCounts
from pdserve.instance.loading import LoadedEngine, make_engine
from pdserve.instance.metrics import InstanceMetrics, LoadCollector
from pdserve.instance.requests import RequestLimits
from pdserve.kv.wire import layout_to_proto
from pdserve.metrics import MetricsEndpoint, read_in_loop
from pdserve.process import StopSignal, announce, new_incarnation
from pdserve.rpc.server import RpcServer
from pdserve.rpc.tls_identity import TlsIdentity, link_identity
from pdserve.rpc.v1 import types_pb2
from pdserve.tasks import task_group

log = logging.getLogger(__name__)

# How long what is left of a request may take to unwind once it was told to end.
STOP_TIMEOUT_S = 5.0
HEALTH_INTERVAL_S = 0.25


class Transfers(Protocol):
    """A role's end of the KV transfers."""

    @property
    def listener(self) -> KvListener | None:
        """Who is told of computed KV, if anyone."""
        ...

    def counts(self) -> TransferCounts:
        """Open transfers, channels and leases."""
        ...

    async def close(self) -> None:
        """Ends transfers and channels; bounded."""
        ...


T = TypeVar("T", bound=Transfers)


@dataclass(frozen=True, slots=True)
class Parts(Generic[T]):
    """What a servicer works with."""

    config: InstanceConfig
    instance: Instance
    transfers: T
    control: Control
    metrics: InstanceMetrics


@dataclass(frozen=True, slots=True)
class Role(Generic[T]):
    """What distinguishes prefill from decode."""

    name: str
    number: "types_pb2.Role.ValueType"
    service_name: str
    open_transfers: Callable[[InstanceConfig, LoadedEngine, str, TlsIdentity | None], Awaitable[T]]
    add_servicer: Callable[[RpcServer, Parts[T]], None]


def run_instance(
    config: InstanceConfig, role: Role[T], load: Callable[[InstanceConfig], LoadedEngine]
) -> int:
    """Runs one instance until it is told to stop; returns the exit status."""
    logs.configure(config.log_level)
    return asyncio.run(_run(config, role, load))


async def _run(
    config: InstanceConfig, role: Role[T], load: Callable[[InstanceConfig], LoadedEngine]
) -> int:
    async with AsyncExitStack() as stack:
        endpoint = stack.enter_context(MetricsEndpoint(config.host, config.metrics_port))
        tls = link_identity(config)
        server = RpcServer(config.host, config.port, [role.service_name], tls)
        await server.start()
        endpoint.healthy = read_in_loop(lambda: server.serving)
        stack.push_async_callback(server.stop, grace_s=0.5)
        loaded = await asyncio.to_thread(load, config)
        stop = StopSignal()  # from here on there is something to drain
        incarnation = new_incarnation()
        transfers = await role.open_transfers(config, loaded, incarnation, tls)
        stack.push_async_callback(transfers.close)
        host = EngineHost(make_engine(config, loaded, transfers.listener), config.max_waiting)
        stack.push_async_callback(host.close, STOP_TIMEOUT_S)
        info = _info(config, role, loaded, incarnation, server.port)
        limits = RequestLimits(loaded.vocab_size, loaded.max_model_len)
        instance = Instance(info, limits, host, transfers.counts, config.step_timeout_s)
        metrics = InstanceMetrics(endpoint.registry, role.name)
        endpoint.registry.register(LoadCollector(read_in_loop(instance.report)))
        drain = Drain(instance, config.drain_grace_s)
        control = Control(instance, config.report_interval_s, drain.begin)
        role.add_servicer(server, Parts(config, instance, transfers, control, metrics))
        upkeep = asyncio.create_task(_keep_up(server, instance, tls), name="upkeep")
        stack.callback(upkeep.cancel)
        announce(role.name, info.name, server.address, endpoint.url, incarnation)
        failure = await _until_stopped(stop, host, upkeep)
        drain.begin(0.0 if failure else None)
        await drain.finished()
        # What is left of the calls ends before the engine and the channels that they use.
        await server.stop(grace_s=0.5)
    return 1 if failure else 0


class Drain:
    """Refuses new requests and gives running ones time to finish."""

    def __init__(self, instance: Instance, grace_s: float) -> None:
        self._instance = instance
        self._grace_s = grace_s
        self._deadline = math.inf
        self._task: asyncio.Task[None] | None = None

    def begin(self, grace_s: float | None) -> None:
        """Starts the drain; a further call can only shorten it."""
        grace_s = self._grace_s if grace_s is None else grace_s
        self._deadline = min(self._deadline, time.monotonic() + grace_s)
        self._instance.draining.set()
        self._instance.host.notify()
        if self._task is None:
            log.info("draining", extra={"requests": self._instance.host.requests})
            self._task = asyncio.create_task(self._wait(), name="drain")

    async def finished(self) -> None:
        """Returns when nothing runs any more or the grace is over."""
        if self._task is not None:
            await self._task

    async def _wait(self) -> None:
        host = self._instance.host
        while host.requests and (left := self._deadline - time.monotonic()) > 0:
            await host.changed(timeout_s=min(left, 1.0))
        if host.requests:
            host.end_requests(f"{self._instance.info.name} ended its drain")


async def _until_stopped(
    stop: StopSignal, host: EngineHost, upkeep: "asyncio.Task[None]"
) -> BaseException | None:
    """Waits for the stop signal or the engine's end; returns what ended the engine."""
    asked = asyncio.create_task(stop.wait(), name="stop signal")
    first: set[asyncio.Future[Any]] = {asked, host.failure, upkeep}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if upkeep.done():
        await upkeep  # raises: a process that cannot tell its health must not go on
    if not host.failure.done():
        return None
    failure = host.failure.result()
    log.critical("the engine failed", exc_info=failure)
    return failure


async def _keep_up(server: RpcServer, instance: Instance, tls: TlsIdentity | None) -> None:
    """Tells the process's health and follows its certificates, until it is cancelled."""
    async with task_group() as tasks:
        tasks.create_task(_tell_health(server, instance))
        if tls:
            tasks.create_task(tls.follow())


async def _tell_health(server: RpcServer, instance: Instance) -> None:
    """Keeps `grpc.health.v1` true to the instance's condition."""
    while True:
        await server.set_serving(instance.healthy)
        await instance.host.changed(HEALTH_INTERVAL_S)


def _info(
    config: InstanceConfig, role: Role[T], loaded: LoadedEngine, incarnation: str, port: int
) -> types_pb2.InstanceInfo:
    return types_pb2.InstanceInfo(
        name=config.name or f"{role.name}-{port}",
        role=role.number,
        incarnation=incarnation,
        version=__version__,
        model=loaded.model,
        layout=layout_to_proto(loaded.layout),
        max_model_len=loaded.max_model_len,
        max_batch_tokens=config.max_batch_tokens,
        max_batch_seqs=config.max_batch_seqs,
        layer_groups=loaded.layer_groups,
    )
