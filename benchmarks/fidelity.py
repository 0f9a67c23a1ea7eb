"""Whether the planner's simulator tells the truth: what it predicts, against real services.

Each round profiles the engine, and replays one trace at three rates through a router, on two
layouts of two instances. The simulator is given the round's profile and the same trace. First the
instances sleep for as long as the profile says (`timed_engine`): what is off there is the
simulator's, or what services cost. Then they run the model: what is off besides is the profile's,
or the machine's.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
from grpc import aio
from numpy.typing import ArrayLike

from benchmarks.client import generate, random_prompt
from benchmarks.replay import replay
from benchmarks.report import console, print_table
from benchmarks.timed_engine import timed_command
from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.cli.tethered import command
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.latency.profile import Profile, read_profile
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import PDSERVE
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.rpc.channel import open_channel
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import IndependentLengths, LognormalLengths
from pdserve.workload.workload import Workload

REQUESTS = 60
PROMPT, OUTPUT = LognormalLengths(120, 0.6), LognormalLengths(24, 0.5)
LONGEST_PROMPT, LONGEST_OUTPUT = 400, 64
SHARES = (0.4, 0.65, 0.9)  # of the rate at which the simulator completes requests that wait
SLO = Slo(ttft_s=2.0, tpot_s=0.15)
PROFILE_S = 40
# Gloo over loopback; most of it is hidden behind the prefill of the other layers.
LINK_BYTES_PER_S, LINK_LATENCY_S = 1e9, 1e-3
INSTANCE = InstanceConfig(
    threads=1, dtype="float32", max_model_len=512, max_batch_seqs=32, kv_memory_bytes=1 << 30
)
# What others may take of a core, on average, while something is measured.
MOST_OTHERS = 0.1
_TRIES, _PATIENCE_S, _LOOK_S = 2, 300.0, 3.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """A cluster, and the roles of its instances as the simulator calls them."""

    name: str
    spec: ClusterSpec
    roles: tuple[str, ...]


LAYOUTS = (
    Layout("1P + 1D", ClusterSpec(1, 1, INSTANCE, RouterConfig()), ("prefill", "decode")),
    Layout(
        "2 colocated", ClusterSpec(0, 2, INSTANCE, RouterConfig(colocated=True)), ("both", "both")
    ),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run comes to: times in ms, and the share of requests within the SLO in %."""

    ttft_p50: float
    ttft_p90: float
    tpot_p50: float
    tpot_p90: float
    attainment: float


class Engine(StrEnum):
    """What the instances compute."""

    TIMED = "instances that sleep for as long as the profile says"
    REAL = "instances that run the model"


@dataclass(frozen=True, slots=True)
class Case:
    """A layout at a rate, in requests per second."""

    engine: Engine
    layout: str
    rate: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One replay: what was predicted, what was measured, and what others took of a core."""

    predicted: Figures
    measured: Figures
    others: float


async def run(repeats: int) -> None:
    """Measures `repeats` rounds and prints predictions and measurements beside each other."""
    workload, rng = make_workload(seed=0), random.Random(0)
    trials: dict[Case, list[Trial]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            path = Path(folder, f"{repeat}.json")
            await _undisturbed(partial(_profile, path))
            profile = read_profile(str(path))
            if not trials:
                trials = {case: [] for case in choose_cases(profile, workload)}
            for engine, layout in product(Engine, LAYOUTS):
                deployment = deploy(layout, profile)
                async with _serving(engine, layout, path) as channel:
                    await _warm_up(channel, rng)
                    for case in trials:
                        if (case.engine, case.layout) == (engine, layout.name):
                            trace = workload.at_rate(case.rate)
                            trials[case].append(await _try(channel, deployment, trace, rng))
    for engine in Engine:
        _print(engine, {case: each for case, each in trials.items() if case.engine is engine})


def make_workload(seed: int) -> Workload:
    """The trace that is replayed: Poisson arrivals, independent lengths, no shared prefixes."""
    drawn = draw_workload(WorkloadSpec(REQUESTS, IndependentLengths(PROMPT, OUTPUT), seed=seed))
    return replace(
        drawn,
        prompt_tokens=drawn.prompt_tokens.clip(2, LONGEST_PROMPT),
        output_tokens=drawn.output_tokens.clip(2, LONGEST_OUTPUT),
    )


def choose_cases(profile: Profile, workload: Workload) -> list[Case]:
    """Each layout at shares of the rate that it is predicted to keep up with."""
    most = {layout.name: capacity(deploy(layout, profile), workload) for layout in LAYOUTS}
    return [
        Case(engine, layout.name, round(share * most[layout.name], 2))
        for engine, layout, share in product(Engine, LAYOUTS, SHARES)
    ]


def deploy(layout: Layout, profile: Profile) -> Deployment:
    """The layout as the simulator is told of it, with the limits that the services run with."""
    policy = replace(
        PDSERVE,
        max_batch_tokens=INSTANCE.max_batch_tokens,
        max_batch_seqs=INSTANCE.max_batch_seqs,
        block_size=INSTANCE.block_size,
    )
    cost = profile.instance(1, 1)
    return Deployment(
        instances=[SimulatedInstance(role, cost, policy) for role in layout.roles],
        links=separate_links(len(layout.roles), LINK_BYTES_PER_S, LINK_LATENCY_S),
        kv_bytes=profile.kv.bytes_per_token,
        output_tokens=OUTPUT.mean,
    )


def capacity(deployment: Deployment, workload: Workload) -> float:
    """Requests per second while all of the workload waits to be served."""
    burst = replace(workload, arrival_s=np.zeros(len(workload)))
    return len(workload) / simulate(deployment, burst, SLO).end_s


def figures(ttft_s: ArrayLike, tpot_s: ArrayLike) -> Figures:
    """Percentiles of times in seconds, by request, and how many requests meet the SLO."""
    ttft, tpot = np.asarray(ttft_s), np.asarray(tpot_s)
    ttft_p50, ttft_p90 = 1e3 * np.percentile(ttft, (50, 90))
    tpot_p50, tpot_p90 = 1e3 * np.percentile(tpot, (50, 90))
    within = (ttft <= SLO.ttft_s) & (tpot <= SLO.tpot_s)
    return Figures(ttft_p50, ttft_p90, tpot_p50, tpot_p90, 100 * float(within.mean()))


def cells(trials: Sequence[Trial]) -> list[str]:
    """Medians over trials: predicted / measured, and the error, of attainment in points."""
    shown = []
    columns = zip(
        zip(*(astuple(trial.predicted) for trial in trials), strict=True),
        zip(*(astuple(trial.measured) for trial in trials), strict=True),
        strict=True,
    )
    *times, attainment = columns
    for predicted, measured in times:
        error = statistics.median(p / m - 1 for p, m in zip(predicted, measured, strict=True))
        pair = f"{statistics.median(predicted):.0f}/{statistics.median(measured):.0f}"
        shown.append(f"{pair} {error:+.0%}")
    predicted, measured = attainment
    points = statistics.median(p - m for p, m in zip(predicted, measured, strict=True))
    pair = f"{statistics.median(predicted):.0f}/{statistics.median(measured):.0f}"
    return [*shown, f"{pair} {points:+.0f}"]


async def _profile(output: Path) -> None:
    """Has `pdserve profile` measure an instance, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pdserve", "profile", f"--output={output}", f"--seconds={PROFILE_S}"),
        f"--threads={INSTANCE.threads}",
        f"--dtype={INSTANCE.dtype}",
        f"--max-model-len={INSTANCE.max_model_len}",
        f"--max-batch-seqs={INSTANCE.max_batch_seqs}",
        f"--kv-memory-bytes={INSTANCE.kv_memory_bytes}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        raise RuntimeError(f"`pdserve profile` ended with status {process.returncode}")


@asynccontextmanager
async def _serving(engine: Engine, layout: Layout, profile: Path) -> AsyncIterator[aio.Channel]:
    """A channel to the router of a layout that is up."""
    command_of = partial(timed_command, profile) if engine is Engine.TIMED else command
    async with (
        LocalCluster(layout.spec, command_of=command_of) as cluster,
        open_channel(cluster.router_address) as channel,
    ):
        yield channel


async def _try(
    channel: aio.Channel, deployment: Deployment, trace: Workload, rng: random.Random
) -> Trial:
    predicted = simulate(deployment, trace, SLO)
    seen, others = await _undisturbed(partial(replay, channel, trace, rng))
    return Trial(
        figures(predicted.ttft_s, predicted.tpot_s),
        figures([each.ttft_s for each in seen], [each.tpot_s for each in seen]),
        others,
    )


def _print(engine: Engine, trials: Mapping[Case, Sequence[Trial]]) -> None:
    print_table(
        f"{engine}: predicted/measured error, ms and %",
        ("layout", "rate", "TTFT p50", "TTFT p90", "TPOT p50", "TPOT p90", "attained"),
        [(case.layout, f"{case.rate:.2f}", *cells(taken)) for case, taken in trials.items()],
    )
    others = [trial.others for taken in trials.values() for trial in taken]
    console.print(
        f"meanwhile others took {statistics.median(others):.0%} of a core in the median replay, "
        f"and {max(others):.0%} in the worst"
    )


async def _warm_up(channel: aio.Channel, rng: random.Random) -> None:
    """Builds every channel and compiles every kernel, on both instances."""
    for tokens in (64, 200):
        await asyncio.gather(*(generate(channel, random_prompt(rng, tokens), 8) for _ in range(4)))


async def _undisturbed(measure: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    """What `measure` returns, and how much of a core others took meanwhile.

    It waits for a machine that is quiet, and measures again, a few times, where others disturbed.
    """
    taken = []
    for _ in range(_TRIES):
        await _quiet()
        before, began = _others_s(), time.perf_counter()
        result = await measure()
        others = (_others_s() - before) / (time.perf_counter() - began)
        taken.append((result, others))
        if others < MOST_OTHERS:
            break
    return min(taken, key=lambda pair: pair[1])


async def _quiet() -> None:
    """Returns when others leave the machine alone, or do not for long."""
    deadline = time.perf_counter() + _PATIENCE_S
    while time.perf_counter() < deadline:
        before = _others_s()
        await asyncio.sleep(_LOOK_S)
        if _others_s() - before < MOST_OTHERS * _LOOK_S:
            return


def _others_s() -> float:
    """Seconds of CPU that all but this process and its children have taken, ever."""
    machine, this = psutil.cpu_times(), psutil.Process()
    busy = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
    own = sum(this.cpu_times()[:4])  # of children that have ended, too
    own += sum(sum(each.cpu_times()[:2]) for each in this.children(recursive=True))
    return float(busy - own)
