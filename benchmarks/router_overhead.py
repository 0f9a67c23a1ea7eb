"""What one router process on one core costs, beside a public router in front of null workers.

The router has core 0; whoever loads it and the null instances behind it have core 1. Whether the
router was the limit is seen by how busy it was; its CPU time a request and a token are the figures
that do not depend on who else wants the cores.

`sglang-router` is measured when the Python of an environment that has it is given; it forwards
whole HTTP requests to workers that speak OpenAI's API, where pdserve's router speaks it itself.
"""

import asyncio
import os
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from grpc import aio

from benchmarks import overhead_load
from benchmarks.client import TIMEOUT_S
from benchmarks.overhead_load import Ask, Shape, load
from benchmarks.overhead_process import Pinned, free_port, pinned
from benchmarks.report import console, percentile, print_table, spread
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc

ROUTER_CORE, LOAD_CORE = 0, 1
# For two routers that do not share a core, and two pairs of instances; where there are so many.
SECOND_ROUTER_CORE, INSTANCE_CORES = 2, (3, 4)
CORES = os.sched_getaffinity(0)
SECONDS = 3.0
LATENCY = {True: Shape(tokens=8, stream=True), False: Shape(tokens=8, stream=False)}
SHORT, SHORT_CONNECTIONS = Shape(tokens=8, stream=False), 32
LONG, LONG_CONNECTIONS = Shape(tokens=256, stream=True), 32
# 32 streams with a token each 20 ms: an instance at work, whose router has time for every token.
PACED, PACED_CONNECTIONS = Shape(tokens=64, stream=True, pace_ms=20), 32

Open = Callable[[Shape, int], AbstractAsyncContextManager[list[Ask]]]


@dataclass(frozen=True, slots=True)
class Side:
    """A router under one protocol. `direct` asks what is behind it, without it."""

    name: str
    router: Pinned
    open: Open
    direct: Open


@dataclass(slots=True)
class Figures:
    """What the rounds gave: times of single requests in seconds, and one figure a round."""

    times: dict[str, list[float]]
    rounds: dict[str, list[float]]


async def run(repeats: int, sglang_router: str = "") -> None:
    """Measures all sides in turn, `repeats` times; `sglang_router` is the Python that has it."""
    os.sched_setaffinity(0, {LOAD_CORE})
    async with AsyncExitStack() as stack:
        sides = await _sides(stack, sglang_router)
        figures = {side.name: Figures(defaultdict(list), defaultdict(list)) for side in sides}
        for side in sides:
            async with side.open(SHORT, 8) as asks:
                await load(asks, SHORT, 1.0)  # warms up
        for _ in range(repeats):
            for side in sides:
                await _measure(side, figures[side.name])
        _print(sides, figures, repeats)
    await _print_two_routers(repeats)


async def _sides(stack: AsyncExitStack, sglang_router: str) -> list[Side]:
    prefill, decode = await _instances(stack)
    router = await stack.enter_async_context(_router([(prefill, decode)], core=ROUTER_CORE))

    def direct(shape: Shape, _: int) -> Any:
        return overhead_load.decode(decode, shape)

    address, web = router.named["address"], router.named["http"].removeprefix("http://")
    sides = [
        Side("pdserve, HTTP", router, lambda *it: overhead_load.http(web, *it), direct),
        Side("pdserve, gRPC", router, lambda *it: overhead_load.grpc(address, *it), direct),
    ]
    if not sglang_router:
        console.print("sglang-router is left out: --sglang-router names a Python that has it")
        return sides
    worker = await stack.enter_async_context(
        pinned("-m", "benchmarks.overhead_worker", cores={LOAD_CORE})
    )
    first, second = worker.words[1:3]
    modes = {
        "sglang-router, plain": ("--worker-urls", f"http://{first}"),
        "sglang-router, P/D": (
            *("--pd-disaggregation", "--prefill", f"http://{first}", "9000"),
            *("--decode", f"http://{second}"),
        ),
    }
    for name, options in modes.items():
        sides.append(await _sglang(stack, name, sglang_router, options, second))
    return sides


async def _sglang(
    stack: AsyncExitStack, name: str, python: str, options: tuple[str, ...], worker: str
) -> Side:
    port = free_port()
    command = (
        *("-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)),
        *("--prometheus-port", str(free_port()), "--log-level", "warn", *options),
    )
    router = await stack.enter_async_context(
        pinned(*command, cores={ROUTER_CORE}, python=python, announces=False)
    )
    await _until_answers(f"http://127.0.0.1:{port}/readiness")
    address = f"127.0.0.1:{port}"
    return Side(
        name,
        router,
        lambda *it: overhead_load.http(address, *it, model="null"),
        lambda *it: overhead_load.http(worker, *it, model="null"),
    )


async def _measure(side: Side, figures: Figures) -> None:
    for stream, shape in LATENCY.items():
        for path, open_ in (("through", side.open), ("direct", side.direct)):
            async with open_(shape, 1) as asks:
                tally = await load(asks, shape, SECONDS / 3)
            kind = "first" if stream else "whole"
            figures.times[f"{path}, {kind}"] += [
                each.first if stream else each.total for each in tally.times
            ]
    for name, shape, connections in (
        ("short", SHORT, SHORT_CONNECTIONS),
        ("long", LONG, LONG_CONNECTIONS),
        ("paced", PACED, PACED_CONNECTIONS),
    ):
        async with side.open(shape, connections) as asks:
            before = side.router.cpu_s()
            tally = await load(asks, shape, SECONDS)
            busy_s = side.router.cpu_s() - before
        count = len(tally.times) if name == "short" else tally.tokens
        figures.rounds[f"{name}, rate"].append(count / tally.seconds)
        figures.rounds[f"{name}, cpu"].append(1e6 * busy_s / count)
        figures.rounds[f"{name}, busy"].append(100 * busy_s / tally.seconds)


def _print(sides: list[Side], figures: dict[str, Figures], repeats: int) -> None:
    kinds = {"first": "first token of a stream", "whole": "whole answer of 8 tokens"}
    print_table(
        f"latency, ms: one request at a time, {repeats} rounds",
        ("router", "until", "p50", "p99", "direct p50", "p99", "added p50", "p99"),
        [
            (side.name, label, *_latency_cells(figures[side.name].times, kind))
            for side in sides
            for kind, label in kinds.items()
        ],
    )
    for name, title, unit in (
        ("short", f"{SHORT_CONNECTIONS} connections, whole answers of 8 tokens", "request"),
        ("long", f"{LONG_CONNECTIONS} streams of 256 tokens, at once", "token"),
        ("paced", f"{PACED_CONNECTIONS} streams, a token each 20 ms", "token"),
    ):
        base = figures[sides[0].name].rounds
        rows = [
            (
                side.name,
                spread(it[f"{name}, rate"], digits=0),
                _ratio(it[f"{name}, rate"], base[f"{name}, rate"]),
                spread(it[f"{name}, cpu"], digits=1),
                _ratio(it[f"{name}, cpu"], base[f"{name}, cpu"]),
                f"{median(it[f'{name}, busy']):.0f}",
            )
            for side in sides
            for it in (figures[side.name].rounds,)
        ]
        columns = ("router", f"{unit}s/s", "ratio", f"CPU µs a {unit}", "ratio", "busy, %")
        print_table(f"{title}; ratio to {sides[0].name}", columns, rows)


async def _print_two_routers(repeats: int) -> None:
    """What two processes do together, each on a core of its own where there are five. Else they
    share the core that one had, which tells what they cost each other, with the load's core as busy
    as before.
    """
    apart = len(CORES) > max(INSTANCE_CORES)
    router_cores = (ROUTER_CORE, SECOND_ROUTER_CORE) if apart else (ROUTER_CORE, ROUTER_CORE)
    instance_cores = INSTANCE_CORES if apart else (LOAD_CORE,)
    rates: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    async with AsyncExitStack() as stack:
        pairs = [await _instances(stack, core) for core in instance_cores]
        routers = [
            await stack.enter_async_context(_router(pairs, core=core)) for core in router_cores
        ]
        for warm in (True, *[False] * repeats):
            for count in rates:
                rate, cost = await _rate_of(routers[:count])
                if not warm:
                    rates[count].append(rate)
                    costs[count].append(cost)
    together = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    where = "a core each" if apart else "on one core"
    rows = [
        (f"{count}, {where}", spread(rates[count], digits=0), spread(costs[count], digits=0))
        for count in rates
    ]
    print_table(
        "router processes over the same instances, HTTP, whole answers of 8 tokens",
        ("processes", "requests/s", "CPU µs a request"),
        rows,
    )
    console.print(f"two, {where}, do {spread(together, digits=2)} of what one does")


async def _rate_of(routers: list[Pinned]) -> tuple[float, float]:
    """Requests/s of all routers together, and CPU µs of theirs a request."""
    async with AsyncExitStack() as stack:
        asks: list[Ask] = []
        for router in routers:
            web = router.named["http"].removeprefix("http://")
            connections = SHORT_CONNECTIONS // len(routers)
            asks += await stack.enter_async_context(overhead_load.http(web, SHORT, connections))
        before = sum(router.cpu_s() for router in routers)
        tally = await load(asks, SHORT, SECONDS)
        busy_s = sum(router.cpu_s() for router in routers) - before
    return len(tally.times) / tally.seconds, 1e6 * busy_s / len(tally.times)


async def _instances(stack: AsyncExitStack, core: int = LOAD_CORE) -> tuple[str, str]:
    command = ("-m", "benchmarks.overhead_instances")
    instances = await stack.enter_async_context(pinned(*command, cores={core}))
    return instances.words[1], instances.words[2]


@asynccontextmanager
async def _router(pairs: Sequence[tuple[str, str]], *, core: int) -> AsyncIterator[Pinned]:
    listed = [
        {"role": role, "address": address, "name": f"{role}-{number}"}
        for number, pair in enumerate(pairs)
        for role, address in zip(("prefill", "decode"), pair, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = _write_list(Path(folder), listed)
        command = ("-m", "pdserve", "router", f"--instances={path}", "--log-level=warning")
        async with pinned(*command, cores={core}) as router:
            async with open_channel(router.named["address"]) as channel:
                await _until_ready(channel)
            yield router


def _write_list(folder: Path, instances: list[dict[str, str]]) -> Path:
    path = folder / "instances.yaml"
    path.write_text(yaml.safe_dump({"instances": instances}))
    return path


async def _until_ready(router: aio.Channel) -> None:
    stub = router_pb2_grpc.InferenceStub(router)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            models = await stub.ListModels(router_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
            if models.models[0].ready:
                return
            await asyncio.sleep(0.05)


async def _until_answers(url: str) -> None:
    """Returns once `url` is answered with 200."""

    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1.0) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    async with asyncio.timeout(TIMEOUT_S):
        while not await asyncio.to_thread(answers):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.2)


def _latency_cells(times: dict[str, list[float]], kind: str) -> list[str]:
    """p50 and p99 through the router and without it, and what they differ by, in ms."""
    through, direct = (
        [percentile(times[f"{path}, {kind}"], share) for share in (0.5, 0.99)]
        for path in ("through", "direct")
    )
    added = [one - other for one, other in zip(through, direct, strict=True)]
    return [f"{1000 * seconds:.2f}" for seconds in (*through, *direct, *added)]


def _ratio(values: list[float], base: list[float]) -> str:
    """Median of the ratios within a round."""
    return f"{median(one / other for one, other in zip(values, base, strict=True)):.2f}"
