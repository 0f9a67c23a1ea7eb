"""Processes whose cores are chosen and whose CPU time is read."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.client import TIMEOUT_S

ROOT = Path(__file__).resolve().parent.parent


class Pinned:
    """A running process on its own cores. `words` is what it said when it was ready."""

    def __init__(self, process: asyncio.subprocess.Process, words: list[str]) -> None:
        self._process = process
        self.words = words

    @property
    def named(self) -> dict[str, str]:
        """The words of the form name=value."""
        return dict(word.split("=", 1) for word in self.words if "=" in word)

    def cpu_s(self) -> float:
        """CPU time of all its threads so far, to the nanosecond.

        The clock of another process is its id in the form of clock_getcpuclockid(3).
        """
        return time.clock_gettime((~self._process.pid << 3) | 2)

    async def end(self) -> None:
        """Ends it, and waits for that."""
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def pinned(
    *command: str, cores: Iterable[int], python: str = sys.executable, announces: bool = True
) -> AsyncIterator[Pinned]:
    """The process `python command…` on `cores`; where it `announces` itself, once it has."""
    chosen = set(cores)
    process = await asyncio.create_subprocess_exec(
        python,
        *command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=asyncio.subprocess.PIPE if announces else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # In the child, before its first thread: all of them inherit it.
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )
    words: list[str] = []
    if process.stdout:
        line = await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)
        words = line.decode().split()
        if not words:
            raise RuntimeError(f"{' '.join(command)} has ended before it was ready")
    it = Pinned(process, words)
    try:
        yield it
    finally:
        await it.end()
