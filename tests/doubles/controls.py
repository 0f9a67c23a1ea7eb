"""How a test speaks to an instance that it has shaped: lines over a Unix socket.

To the instance: `hold STAGE`, `release`, `throttle BYTES_PER_S`, `stall`, `resume`, `cut`. From it:
`held STAGE`, as soon as something waits there, and `done` after each command.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path

from tests.doubles.holds import Holds
from tests.doubles.shaped_link import Wire


class ControlServer:
    """The instance's end: a thread that carries out what the one client at a time says."""

    def __init__(self, path: Path) -> None:
        self.holds = Holds(self._tell_held)
        self.wire = Wire()
        self._client: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        # Whoever finds the path can connect to it.
        unready = path.with_name(f"{path.name}.new")
        self._listener.bind(str(unready))
        self._listener.listen()
        unready.rename(path)
        threading.Thread(target=self._serve, name="controls", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._client, _ = self._listener.accept()
            with self._client, self._client.makefile("r") as lines, suppress(OSError):
                for line in lines:
                    self._obey(*line.split())
                    self._client.sendall(b"done\n")
            self.holds.release()  # whoever wanted it has gone

    def _obey(self, command: str, *words: str) -> None:
        match command, *words:
            case ["hold", stage]:
                self.holds.hold(stage)
            case ["release"]:
                self.holds.release()
            case ["throttle", bytes_per_s]:
                self.wire.throttle(float(bytes_per_s))
            case ["stall" | "resume" | "cut"]:
                getattr(self.wire, command)()
            case _:
                raise ValueError(f"no command {command} {words}")

    def _tell_held(self, stage: str) -> None:
        client = self._client
        if client is not None:
            with suppress(OSError):
                client.sendall(f"held {stage}\n".encode())


class Controls:
    """The test's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._said = self._done = 0
        self._answered = asyncio.Event()
        self.held = asyncio.Event()

    async def connect(self) -> None:
        """Speaks to the process that listens at the path now; whoever calls it calls `close`."""
        await self.close()
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._said = self._done = 0
        self._reading = asyncio.create_task(self._read(reader))

    async def hold(self, stage: str) -> None:
        """The next to reach `stage` waits; `held` is set when one does."""
        self.held.clear()
        await self.say(f"hold {stage}")

    def post(self, command: str) -> None:
        """Sends a command without waiting until it is carried out; a dead process hears nothing."""
        assert self._writer is not None
        self._writer.write(f"{command}\n".encode())
        self._said += 1

    async def say(self, command: str) -> None:
        """Returns once the command is carried out, which a dead process never does."""
        self.post(command)
        number = self._said
        while self._done < number:
            self._answered.clear()
            await self._answered.wait()

    async def close(self) -> None:
        """Lets go of the connection, and the instance of whatever is held."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            async for line in reader:
                if line.startswith(b"held"):
                    self.held.set()
                else:
                    self._done += 1
                    self._answered.set()
