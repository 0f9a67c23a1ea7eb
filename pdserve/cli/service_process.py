"""One service as a child process: its output, its health, its end."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pdserve.cli.log_line import event_of, is_important
from pdserve.errors import UnavailableError
from pdserve.options import PREFIX
from pdserve.rpc.channel import open_channel
from pdserve.rpc.server import SERVING
from pdserve.rpc.tls import ClientTls

_TAIL_LINES = 20
_LINE_BYTES = 1 << 20
_READY = "ready "
_HEALTH_RETRY_S = 0.2


class State(StrEnum):
    """What is known of the process."""

    STARTING = "starting"
    SERVING = "serving"
    NOT_SERVING = "not serving"
    EXITED = "exited"


class ServiceProcess:
    """A child that runs `command`, prints a line that starts with "ready" and serves gRPC health.

    `address` is where its gRPC server will listen, over TLS where `tls` is given. `on_line(self,
    line)` gets each line that the child writes to stderr. Whoever calls `start` calls `stop`.
    """

    def __init__(
        self,
        role: str,
        name: str,
        address: str,
        command: Sequence[str],
        on_line: "Callable[[ServiceProcess, str], None]",
        tls: ClientTls | None = None,
    ) -> None:
        self.role = role
        self.name = name
        self.address = address
        self.state = State.STARTING
        # What the child said of itself once it was up: metrics, incarnation and more.
        self.facts: dict[str, str] = {}
        self.stderr_tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._command = tuple(command)
        self._on_line = on_line
        self._tls = tls
        self._process: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._announced = asyncio.Event()
        self._settled = asyncio.Event()
        self._exited = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process id; `RuntimeError` before `start`."""
        return self._child.pid

    @property
    def return_code(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def progress(self) -> str:
        """What it does right now, in a few words."""
        return event_of(self.stderr_tail[-1]) if self.stderr_tail else ""

    async def start(self) -> None:
        """Starts the child; it is not up yet."""
        # The flags are complete: this process has read its environment already, and a child that
        # read it again would take, for example, a port that was meant for the router.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            limit=_LINE_BYTES,
            # Ctrl-C reaches the supervisor alone, which then stops the children in good order.
            process_group=0,
        )
        self._supervision = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")

    async def wait_serving(self) -> None:
        """Returns once its health is SERVING; `UnavailableError` where it ends before."""
        await self._settled.wait()
        if self.state is State.EXITED:
            raise UnavailableError(self.obituary())

    async def wait_exited(self) -> None:
        """Returns once the process has ended."""
        await self._exited.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing where the process has ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                self._process.send_signal(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL to what still runs after `grace_s`; nothing before `start`."""
        if self._supervision is None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a stopped process cannot act on SIGTERM
        try:
            async with asyncio.timeout(grace_s):
                await self._exited.wait()
        except TimeoutError:
            pass
        finally:
            self.signal(signal.SIGKILL)
            await self._supervision

    def obituary(self) -> str:
        """How it ended and what it said last that matters."""
        code = self.return_code
        how = f"status {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        said = "".join(f"\n  {line}" for line in self.stderr_tail if is_important(line))
        return f"{self.name} (pid {self.pid}) ended with {how}{said}"

    @property
    def _child(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    async def _supervise(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_stdout())
                group.create_task(self._read_stderr())
                health = group.create_task(self._watch_health())
                await self._child.wait()
                health.cancel()
        finally:
            self.state = State.EXITED
            self._settled.set()
            self._exited.set()

    async def _read_stdout(self) -> None:
        assert self._child.stdout is not None
        async for raw in self._child.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            if line.startswith(_READY):
                pairs = (word.partition("=") for word in line.removeprefix(_READY).split())
                self.facts = {key: value for key, _, value in pairs}
                self._announced.set()

    async def _read_stderr(self) -> None:
        assert self._child.stderr is not None
        async for raw in self._child.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if line:
                self.stderr_tail.append(line)
                self._on_line(self, line)

    async def _watch_health(self) -> None:
        await self._announced.wait()
        channel = open_channel(self.address, self._tls)
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                # A stream without a deadline: it ends with the child, or when pings go unanswered.
                with contextlib.suppress(aio.AioRpcError):
                    watch = stub.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
                    async for answer in watch:
                        self._on_health(answer.status == SERVING)
                self._on_health(serving=False)
                await asyncio.sleep(_HEALTH_RETRY_S)
        finally:
            await channel.close()

    def _on_health(self, serving: bool) -> None:
        if serving:
            self.state = State.SERVING
            self._settled.set()
        elif self.state is State.SERVING:
            self.state = State.NOT_SERVING
