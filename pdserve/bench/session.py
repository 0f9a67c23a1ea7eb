"""Targets that are ready, and the runs against them."""

import asyncio
import gc
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pdserve.bench.load import Load, rate_text
from pdserve.bench.open_loop import Bounds, OpenLoop, Run
from pdserve.bench.prompts import IdPrompts, Prompts, TextPrompts
from pdserve.bench.record import Record
from pdserve.bench.target import Facts, Target, TokenRange
from pdserve.workload.operations import head
from pdserve.workload.workload import Workload


class Watcher(Protocol):
    """Is told how it goes."""

    def begin(self, title: str, requests: int) -> None:
        """A run begins."""
        ...

    def seen(self, record: Record) -> None:
        """A request has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A target and what was found out of it."""

    target: Target
    facts: Facts


@dataclass(frozen=True, slots=True)
class Slice:
    """A run and where it belongs: at `rate`, in round `number`."""

    rate: float
    number: int
    run: Run


class Session:
    """Runs workloads of one load, each with prompts that no run before it had.

    `seed` decides all contents. `stop` ends what runs, and nothing is begun after it.
    """

    def __init__(
        self, load: Load, bounds: Bounds, seed: int, stop: asyncio.Event, watcher: Watcher
    ) -> None:
        self._load = load
        self._bounds = bounds
        self._seed = seed
        self._stop = stop
        self._watcher = watcher
        self._runs = 0

    @property
    def stopped(self) -> bool:
        """Whether it is to end."""
        return self._stop.is_set()

    async def warm_up(self, prepared: Prepared, requests: int) -> None:
        """Sends so many requests at once and forgets them."""
        if requests:
            first = head(self._load.at(self._load.rate, 0), requests)
            burst = replace(first, arrival_s=np.zeros(len(first)))
            self._watcher.begin(f"warm-up · {prepared.target.name}", len(burst))
            bounds = replace(self._bounds, in_flight=max(self._bounds.in_flight, len(burst)))
            await self._run(prepared, burst, bounds)

    async def run(self, prepared: Prepared, rate: float, number: int = 0) -> Slice:
        """Sends a round at `rate`."""
        workload = self._load.at(rate, number)
        self._watcher.begin(f"{rate_text(rate)} · {prepared.target.name}", len(workload))
        return Slice(rate, number, await self._run(prepared, workload, self._bounds))

    async def _run(self, prepared: Prepared, workload: Workload, bounds: Bounds) -> Run:
        self._runs += 1
        prompts = _prompts(prepared.facts, workload, self._seed * 1_000_003 + self._runs)
        loop = OpenLoop(prepared.target, workload, prompts, bounds, self._stop, self._watcher.seen)
        # Collecting what earlier runs left would take time from this one.
        gc.collect()
        gc.freeze()
        return await loop.run()


def _prompts(facts: Facts, workload: Workload, seed: int) -> Prompts:
    if isinstance(facts.prompts, TokenRange):
        return IdPrompts(workload, seed, facts.prompts)
    return TextPrompts(workload, seed, facts.prompts)
