"""What disaggregation does for interference: decoding streams while long prompts arrive.

Two cores, as one instance for prefill and one for decode, as two instances that do both, or as one
instance of two threads that does both: the same requests at the same times, in turn.
"""

import asyncio
import random
from dataclasses import dataclass, replace

from grpc import aio

from benchmarks.client import Timeline, generate, random_prompt
from benchmarks.report import milliseconds, print_table
from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.channel import open_channel

STREAMS, STREAM_PROMPT, STREAM_TOKENS = 8, 64, 400
PROMPTS, PROMPT_TOKENS, PROMPTS_PER_S = 10, 512, 0.6


@dataclass(frozen=True, slots=True)
class Round:
    """Gaps of the streams while prompts were arriving, and what the prompts saw."""

    gaps: list[float]
    ttfts: list[float]


async def run(repeats: int) -> None:
    """Measures both layouts, turn by turn, and prints them."""
    instance = InstanceConfig(threads=1, prefix_cache=False)
    colocated = RouterConfig(colocated=True)
    layouts = {
        "disaggregated, 1P + 1D": ClusterSpec(1, 1, instance, RouterConfig()),
        "colocated, 2 instances": ClusterSpec(0, 2, instance, colocated),
        "colocated, 1 of 2 threads": ClusterSpec(0, 1, replace(instance, threads=2), colocated),
    }
    rounds: dict[str, list[Round]] = {name: [] for name in layouts}
    for repeat in range(repeats):
        for name, spec in layouts.items():
            async with LocalCluster(spec) as cluster:
                rounds[name].append(await _measure(cluster.router_address, repeat))
    rows = []
    for name, taken in rounds.items():
        gaps = [gap for each in taken for gap in each.gaps]
        ttfts = [ttft for each in taken for ttft in each.ttfts]
        rows.append((name, *milliseconds(gaps, 0.5, 0.9, 0.99), *milliseconds(ttfts, 0.5, 0.9)))
    print_table(
        f"{STREAMS} streams decode while prompts of {PROMPT_TOKENS} tokens arrive "
        f"({PROMPTS_PER_S}/s, Poisson); ms over {repeats} rounds",
        ("layout", "ITL p50", "ITL p90", "ITL p99", "TTFT p50", "TTFT p90"),
        rows,
    )


async def _measure(address: str, seed: int) -> Round:
    rng = random.Random(seed)
    channel = open_channel(address)
    try:
        await generate(channel, random_prompt(rng, 32), 4)  # warms up, and builds the channel
        async with asyncio.TaskGroup() as group:
            prompts = [random_prompt(rng, STREAM_PROMPT) for _ in range(STREAMS)]
            streams = [
                group.create_task(generate(channel, prompt, STREAM_TOKENS)) for prompt in prompts
            ]
            arrivals = group.create_task(_arrive(group, channel, rng))
    finally:
        await channel.close()
    prompted = [task.result() for task in arrivals.result()]
    first, last = prompted[0].sent, max(line.tokens[-1] for line in prompted)
    return Round(_gaps_between([task.result() for task in streams], first, last), _ttfts(prompted))


async def _arrive(
    group: asyncio.TaskGroup, channel: aio.Channel, rng: random.Random
) -> list[asyncio.Task[Timeline]]:
    tasks = []
    for _ in range(PROMPTS):
        await asyncio.sleep(rng.expovariate(PROMPTS_PER_S))
        prompt = random_prompt(rng, PROMPT_TOKENS)
        tasks.append(group.create_task(generate(channel, prompt, 2)))
    return tasks


def _gaps_between(lines: list[Timeline], first: float, last: float) -> list[float]:
    return [
        late - early
        for line in lines
        for early, late in zip(line.tokens, line.tokens[1:], strict=False)
        if first <= late <= last
    ]


def _ttfts(lines: list[Timeline]) -> list[float]:
    return [line.ttft for line in lines]
