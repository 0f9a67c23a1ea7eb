"""How much `pdserve bench` itself can send and receive before it is late, on one core.

A null server in a process of its own answers with server-sent events. The load grows until one
percent of the requests goes out more than `LATE_S` after it was due: what lies below is what the
generator can be trusted with, and what it warns about lies above.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import TIMEOUT_S
from benchmarks.report import print_table
from pdserve.bench.descriptors import most_connections
from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.load import Amount, DrawnLoad
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
    """What grows: requests of so many tokens, one every `interval_ms`, beginning at `rate`."""

    name: str
    output_tokens: int
    interval_ms: float
    rate: float


SHAPES = (
    Shape("requests: one token each, at once", 1, 0, 100),
    Shape("tokens: streams of 200, one token every 20 ms", 200, 20, 8),
)


class Silent:
    """A watcher that nobody looks at."""

    def begin(self, title: str, requests: int) -> None:
        """See `Watcher.begin`."""

    def seen(self, record: Record) -> None:
        """See `Watcher.seen`."""


async def run(repeats: int) -> None:
    """Grows each kind of load `repeats` times."""
    most_connections()
    for shape in SHAPES:
        rows = []
        for number in range(repeats):
            async with _null_server(shape.interval_ms) as url:
                rows += [(str(number + 1), *row) async for row in _growing(url, shape)]
        print_table(
            f"{shape.name}; prompts of {PROMPT_TOKENS} token ids, {DURATION_S:g} s a rate",
            ("round", "requests/s", "tokens/s", "lag p50", "p99, ms", "core", "CPU µs a token"),
            rows,
        )


async def _growing(url: str, shape: Shape) -> AsyncIterator[tuple[str, ...]]:
    """What each load comes to, up to and with the first one that the generator is late at."""
    target = HttpTarget(HttpOptions(url))
    prepared = Prepared(target, await target.prepare())
    load = DrawnLoad(lambda *asked: _draw(shape, *asked), shape.rate, Amount(duration_s=DURATION_S))
    session = Session(load, Bounds(TIMEOUT_S, 100_000), 0, asyncio.Event(), Silent())
    try:
        await session.warm_up(prepared, 20)
        for rate in _rates(shape.rate):
            run = (await session.run(prepared, rate)).run
            summary = summarize(rate, [run], Slo())
            cpu_s = run.cpu * run.elapsed_s
            yield _cells(summary, cpu_s / sum(record.output_tokens for record in run.records))
            if summary.generator.lag.p99 > LATE_S:
                return
    finally:
        await target.close()


def _draw(shape: Shape, requests: int, rate: float, number: int) -> Workload:
    lengths = IndependentLengths(FixedLengths(PROMPT_TOKENS), FixedLengths(shape.output_tokens))
    return draw_workload(WorkloadSpec(requests, lengths, rate=rate, seed=number))


def _rates(rate: float) -> Iterator[float]:
    while True:
        yield rate
        rate *= GROWTH


def _cells(summary: Summary, cpu_s: float) -> tuple[str, ...]:
    lag = summary.generator.lag
    return (
        f"{summary.sent_rate:,.0f}",
        f"{summary.sent_rate * summary.output_tokens:,.0f}",
        f"{lag.p50 * 1e3:.1f}",
        f"{lag.p99 * 1e3:.1f}",
        f"{summary.generator.cpu:.0%}",
        f"{cpu_s * 1e6:,.0f}",
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
