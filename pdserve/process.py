"""The life of a service process: stop signals, and the line that says it is ready."""

import asyncio
import os
import signal
import time
import uuid

_ONE_REQUEST_S = 0.5


def new_incarnation() -> str:
    """A name for this life of the process that no other life has."""
    return uuid.uuid4().hex[:16]


def announce(
    role: str, name: str, address: str, metrics_url: str, incarnation: str, http_url: str = ""
) -> None:
    """Prints, for whoever started the process, that it is ready and where it listens.

    `http_url` is where a router serves its HTTP API, empty where there is none.
    """
    line = f"role={role} name={name} address={address} metrics={metrics_url}"
    if http_url:
        line = f"{line} http={http_url}"
    print(f"ready {line} incarnation={incarnation} pid={os.getpid()}", flush=True)


class StopSignal:
    """SIGTERM or SIGINT: the first sets `asked`, a later one ends the process at once.

    Before there is one of these, either signal ends the process at once. A signal that follows
    within half a second is the same request: to the process and to its group, for example.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._asked_at = 0.0
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    async def wait(self) -> None:
        """Returns once the process has been asked to stop."""
        await self.asked.wait()

    def _on_signal(self, number: int) -> None:
        now = time.monotonic()
        if not self.asked.is_set():
            self._asked_at = now
            self.asked.set()
        elif now - self._asked_at > _ONE_REQUEST_S:
            os._exit(128 + number)
