"""How much `pdserve bench` itself can send and receive, on one core, before it is the bottleneck.

A null server in a process of its own answers with server-sent events. First all requests go out at
once, so that the generator has as much to do as it can: what it takes of the processor for each is
its capacity, and hardly hangs on what else the machine does. Then the load grows until half of the
requests go out more than `LATE_S` after they were due.
"""

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.client import TIMEOUT_S
from benchmarks.report import print_table, spread
from pdserve.bench.descriptors import most_connections
from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.load import Amount, DrawnLoad, Load, TraceLoad
from pdserve.bench.open_loop import Bounds
from pdserve.bench.record import Record
from pdserve.bench.session import Prepared, Session
from pdserve.bench.summary import Summary, summarize
from pdserve.planner.slo import Slo
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import FixedLengths, IndependentLengths
from pdserve.workload.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
NULL_SERVER = str(ROOT / "tests" / "doubles" / "null_openai.py")
LATE_S = 0.010
GROWTH = 1.4
DURATION_S = 5.0
PROMPT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """Requests of so many tokens, one every `interval_ms`.

    `burst` of them are sent at once; what grows begins at `rate`.
    """

    name: str
    output_tokens: int
    interval_ms: float
    burst: int
    rate: float


SHAPES = (
    Shape("requests: one token each, at once", 1, 0, 1000, 100),
    Shape("tokens: streams of 200, one token every 20 ms", 200, 20, 150, 8),
)


class Silent:
    """A watcher that nobody looks at."""

    def begin(self, title: str, requests: int) -> None:
        """See `Watcher.begin`."""

    def seen(self, record: Record) -> None:
        """See `Watcher.seen`."""


async def run(repeats: int) -> None:
    """Measures each kind of load `repeats` times: all at once, then growing."""
    most_connections()
    for shape in SHAPES:
        bursts: list[tuple[float, float]] = []
        rows: list[tuple[str, ...]] = []
        for number in range(repeats):
            async with _null_server(shape.interval_ms) as url:
                bursts.append(await _burst(url, shape))
                rows += [(str(number + 1), *row) async for row in _growing(url, shape)]
        costs, rates = zip(*bursts, strict=True)
        print_table(
            f"{shape.name}; {shape.burst} at once, prompts of {PROMPT_TOKENS} token ids",
            ("CPU, µs a token", "tokens a second of CPU"),
            [(spread(costs), spread(rates, digits=0))],
        )
        print_table(
            f"the same, growing, {DURATION_S:g} s a rate",
            ("round", "requests/s", "tokens/s", "lag p50", "p99, ms", "core"),
            rows,
        )


async def _burst(url: str, shape: Shape) -> tuple[float, float]:
    """Microseconds of processor time a token, and the tokens of a second of it."""
    at_once = np.zeros(shape.burst)
    drawn = replace(_draw(shape, shape.burst, shape.rate, 0), arrival_s=at_once)
    async with _session(url, TraceLoad(drawn, Amount())) as (session, prepared):
        done = (await session.run(prepared, math.inf)).run
    cpu_s = done.cpu * done.elapsed_s / (shape.burst * shape.output_tokens)
    return cpu_s * 1e6, 1 / cpu_s


async def _growing(url: str, shape: Shape) -> AsyncIterator[tuple[str, ...]]:
    """What each load comes to, up to and with the first one that the generator is late at."""
    load = DrawnLoad(lambda *asked: _draw(shape, *asked), shape.rate, Amount(duration_s=DURATION_S))
    async with _session(url, load) as (session, prepared):
        for rate in _rates(shape.rate):
            summary = summarize(rate, [(await session.run(prepared, rate)).run], Slo())
            yield _cells(summary)
            if summary.generator.lag.p50 > LATE_S:
                return


@asynccontextmanager
async def _session(url: str, load: Load) -> AsyncIterator[tuple[Session, Prepared]]:
    target = HttpTarget(HttpOptions(url))
    try:
        prepared = Prepared(target, await target.prepare())
        session = Session(load, Bounds(TIMEOUT_S, 100_000), 0, asyncio.Event(), Silent())
        await session.warm_up(prepared, 20)
        yield session, prepared
    finally:
        await target.close()


def _draw(shape: Shape, requests: int, rate: float, number: int) -> Workload:
    lengths = IndependentLengths(FixedLengths(PROMPT_TOKENS), FixedLengths(shape.output_tokens))
    return draw_workload(WorkloadSpec(requests, lengths, rate=rate, seed=number))


def _rates(rate: float) -> Iterator[float]:
    while True:
        yield rate
        rate *= GROWTH


def _cells(summary: Summary) -> tuple[str, ...]:
    lag = summary.generator.lag
    return (
        f"{summary.sent_rate:,.0f}",
        f"{summary.sent_rate * summary.output_tokens:,.0f}",
        f"{lag.p50 * 1e3:.1f}",
        f"{lag.p99 * 1e3:.1f}",
        f"{summary.generator.cpu:.0%}",
    )


@asynccontextmanager
async def _null_server(interval_ms: float) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        NULL_SERVER,
        f"--interval-ms={interval_ms}",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield (await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)).decode().strip()
    finally:
        process.terminate()
        await process.wait()
