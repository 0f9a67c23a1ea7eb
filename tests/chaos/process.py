"""Processes of a cluster as forks of one that has imported everything: up in a moment."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdserve.cli.tethered import die_with

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "tests.chaos.entries"])
_EXIT_TIMEOUT_S = 30.0


class Process:
    """One process at a time that runs `entry(*arguments)`; what it prints goes to the file `log`.

    `entry` is a function of a module, and returns the exit status.
    """

    def __init__(self, log: Path, entry: Callable[..., int], *arguments: Any) -> None:
        self._log = log
        self._entry = entry
        self._arguments = arguments
        self._process: Any = None

    @property
    def pid(self) -> int:
        """Of the present, or last, process."""
        assert self._process is not None
        assert self._process.pid is not None
        return int(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal; None while it runs."""
        return self._process.exitcode

    def start(self) -> None:
        """Starts it; it is not up yet."""
        self._process = _FORKS.Process(
            target=_run, args=(self._log, self._entry, *self._arguments), daemon=True
        )
        self._process.start()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if self._process is not None and self._process.exitcode is None:
            os.kill(self.pid, number)

    async def exited(self) -> None:
        """Returns once it has ended; AssertionError where it does not."""
        await asyncio.to_thread(self._process.join, _EXIT_TIMEOUT_S)
        assert self.exit_code is not None, f"pid {self.pid} does not end"

    async def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self.exited()


def _run(log: Path, entry: Callable[..., int], *arguments: Any) -> None:
    die_with(os.getppid())
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    raise SystemExit(entry(*arguments))
