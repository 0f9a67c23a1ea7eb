"""A whole cluster on this machine, as child processes: what `pdserve up` and the tests start."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType

import yaml

from pdserve.api_keys import bearer, read_keys
from pdserve.cli.reserved_port import ReservedPort
from pdserve.cli.service_process import ServiceProcess
from pdserve.cli.tethered import command
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError, UnavailableError
from pdserve.options import to_flags
from pdserve.rpc.channel import open_channel
from pdserve.rpc.errors import translated
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.tls_identity import door_client, link_client
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc
from pdserve.tasks import task_group

LOOPBACK = "127.0.0.1"
ROUTER = "router"
_MAX_INSTANCES = 64
_POLL_S = 0.05
# Beyond a service's own drain time: until it has closed everything.
_EXIT_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What to start. Host and ports in `router` are the router's; instances are on loopback.

    `instance` holds for every instance but those in `differing`, which has the options of others by
    name: prefill-0, …, decode-0, …. `threads` 0 shares the CPU cores among the instances.
    """

    prefill: int = 1
    decode: int = 1
    instance: InstanceConfig = field(default_factory=InstanceConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    start_timeout_s: float = 600.0
    differing: Mapping[str, InstanceConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, count, low in (("prefill", self.prefill, 0), ("decode", self.decode, 1)):
            if not low <= count <= _MAX_INSTANCES:
                limit = f"[{low}, {_MAX_INSTANCES}]"
                raise ConfigError(
                    f"{name} is {count}; it must lie in {limit}", field=name, limit=limit
                )
        strangers = sorted(set(self.differing) - {name for _, name in self.names()})
        if strangers:
            raise ConfigError(f"there is no instance {strangers[0]}", field="differing")

    def names(self) -> Sequence[tuple[str, str]]:
        """Role and name of each instance."""
        counts = (("prefill", self.prefill), ("decode", self.decode))
        return [(role, f"{role}-{index}") for role, count in counts for index in range(count)]

    def options(self, name: str) -> InstanceConfig:
        """The options of an instance."""
        return self.differing.get(name, self.instance)


def _ignore_line(process: ServiceProcess, line: str) -> None:
    """Drops a line of a child's stderr."""


class LocalCluster:
    """Starts, signals, restarts and stops the processes of a `ClusterSpec`.

    `processes` are by name: prefill-0, …, decode-0, …, router. As a context manager it is started
    inside, and on leaving nothing of it is left. `command_of(role, *flags)` is a process's command
    line.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        on_line: Callable[[ServiceProcess, str], None] = _ignore_line,
        command_of: Callable[..., Sequence[str]] | None = None,
    ) -> None:
        self.spec = spec
        self.processes: dict[str, ServiceProcess] = {}
        self._on_line = on_line
        self._command_of = command_of or command
        self._ports: list[ReservedPort] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        # By name: how to start the process, and start it once more.
        self._recipes: dict[str, Callable[[], ServiceProcess]] = {}

    @property
    def router_address(self) -> str:
        """Where clients call."""
        return self.processes[ROUTER].address

    @property
    def http_url(self) -> str:
        """Where the router serves its HTTP API; empty where it has none."""
        url = self.processes[ROUTER].facts.get("http", "")
        # Whoever listens on all addresses is reached on any, but not by the name of all.
        return url.replace("//0.0.0.0:", f"//{LOOPBACK}:").replace("//[::]:", f"//{LOOPBACK}:")

    @property
    def addresses(self) -> Mapping[str, str]:
        """host:port of every process, by name."""
        return {name: process.address for name, process in self.processes.items()}

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids by name."""
        return {name: process.pid for name, process in self.processes.items()}

    async def start(self) -> None:
        """Returns once everything is SERVING and the router has found every instance.

        Raises `UnavailableError` with the reason, and leaves nothing behind, where a process ends
        or `spec.start_timeout_s` passes before; `ConfigError` where the router's port is in use.
        """
        try:
            self._prepare()
            async with self._start_deadline():
                for name, recipe in self._recipes.items():
                    self.processes[name] = recipe()
                    await self.processes[name].start()
                async with task_group() as tasks:
                    for process in self.processes.values():
                        tasks.create_task(process.wait_serving())
                await self._wait_until_found(list(self.processes))
        except BaseException:
            await self.stop(grace_s=0.0)
            raise

    async def stop(self, grace_s: float | None = None) -> None:
        """SIGTERM to all, SIGKILL to what is left after `grace_s` (default: their drain time)."""
        if grace_s is None:
            drains_s = [self.spec.options(name).drain_grace_s for _, name in self.spec.names()]
            grace_s = max(*drains_s, self.spec.router.drain_grace_s) + _EXIT_MARGIN_S
        try:
            async with task_group() as tasks:
                for process in self.processes.values():
                    tasks.create_task(process.stop(grace_s))
        finally:
            self._clean_up()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to one process."""
        self.processes[name].signal(number)

    async def kill(self, name: str) -> None:
        """SIGKILL; returns once the process is gone."""
        self.signal(name, signal.SIGKILL)
        await self.processes[name].wait_exited()

    async def restart(self, name: str) -> None:
        """Starts a process that has ended once more, on the same address.

        Returns when it is SERVING and the router has found it; `UnavailableError` as `start`.
        """
        await self.processes[name].wait_exited()
        self.processes[name] = self._recipes[name]()
        async with self._start_deadline():
            await self.processes[name].start()
            await self.processes[name].wait_serving()
            await self._wait_until_found([name])

    async def wait_any_exited(self, names: Sequence[str]) -> str:
        """The name of the first of these processes that ends."""
        waits = {asyncio.create_task(self.processes[name].wait_exited()): name for name in names}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            for wait in waits:
                wait.cancel()

    async def __aenter__(self) -> "LocalCluster":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _prepare(self) -> None:
        """Reserves the ports and writes the list of instances."""
        self._folder = tempfile.TemporaryDirectory(prefix="pdserve-")
        listed = Path(self._folder.name, "instances.yaml")
        instances = [self._add_instance(role, name) for role, name in self.spec.names()]
        listed.write_text(yaml.safe_dump({"instances": instances}))
        self._add_router(listed)

    def _clean_up(self) -> None:
        for port in self._ports:
            port.release()
        self._ports.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _add_instance(self, role: str, name: str) -> dict[str, str]:
        port = self._reserve(LOOPBACK, 0)
        options = self.spec.options(name)
        config = replace(
            options,
            name=name,
            host=LOOPBACK,
            advertise_host="",
            port=port,
            metrics_port=0,
            threads=options.threads or self._fair_threads(),
        )
        address = f"{LOOPBACK}:{port}"
        self._add(role, name, address, to_flags(config), partial(link_client, config))
        return {"role": role, "address": address, "name": name}

    def _add_router(self, instances: Path) -> None:
        host = self.spec.router.host
        port = self._reserve(host, self.spec.router.port)
        http_port = self._reserve(host, self.spec.router.http_port, option="http_port")
        config = replace(
            self.spec.router,
            name=ROUTER,
            port=port,
            http_port=http_port,
            instances=str(instances),
        )
        reachable = LOOPBACK if host in ("0.0.0.0", "::") else host
        address = f"{reachable}:{port}"
        self._add("router", ROUTER, address, to_flags(config), partial(door_client, config))

    def _add(
        self,
        role: str,
        name: str,
        address: str,
        flags: list[str],
        tls: Callable[[], ClientTls | None],
    ) -> None:
        words = self._command_of(role, *flags)
        self._recipes[name] = lambda: ServiceProcess(
            role, name, address, words, self._on_line, tls()
        )

    def _reserve(self, host: str, port: int, *, option: str = "port") -> int:
        self._ports.append(ReservedPort(host, port, option=option))
        return self._ports[-1].number

    def _credentials(self) -> tuple[tuple[str, str], ...]:
        """A key that the router knows, if it wants one."""
        path = self.spec.router.api_keys
        return bearer(next(iter(read_keys(Path(path))))) if path else ()

    def _fair_threads(self) -> int:
        return max(1, len(os.sched_getaffinity(0)) // (self.spec.prefill + self.spec.decode))

    @asynccontextmanager
    async def _start_deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                yield
        except TimeoutError as error:
            states = ", ".join(f"{each.name} is {each.state}" for each in self.processes.values())
            raise UnavailableError(
                f"the cluster was not up after {self.spec.start_timeout_s:g} s: {states}"
            ) from error

    async def _wait_until_found(self, names: Sequence[str]) -> None:
        """Polls the router until it says that the instances among `names` are up."""
        wanted = {self.processes[name].address for name in names if name != ROUTER}
        channel = open_channel(self.router_address, door_client(self.spec.router))
        metadata = self._credentials()
        try:
            stub = router_pb2_grpc.InferenceStub(channel)
            while True:
                async with translated():
                    answer = await stub.GetCluster(
                        router_pb2.GetClusterRequest(), timeout=10.0, metadata=metadata
                    )
                up = {each.address for each in answer.instances if each.state == "up"}
                if wanted <= up:
                    return
                await asyncio.sleep(_POLL_S)
        finally:
            await channel.close()
