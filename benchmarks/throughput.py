"""Tokens per second through the real services (one instance that does both phases) and alone.

With a core left to them, the ratio says what gRPC and asyncio cost an engine that steps in a thread
of the same process: whether it needs a process of its own. With none left, it also says what router
and client take from the engine's cores.
"""

import asyncio
import os
import random
import time

import torch

from benchmarks.client import generate, random_prompt
from benchmarks.report import print_table, spread
from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.engine.engine import Engine, EngineRequest
from pdserve.instance.loading import load_engine, make_engine
from pdserve.rpc.channel import open_channel
from pdserve.sampling import SamplingParams
from pdserve.scheduling.sequence import Work

SEQUENCES, CONTEXT, PROMPT, NEW_TOKENS = 16, 240, 512, 33


async def run(repeats: int) -> None:
    """Measures with one core left to everything but the engine, and with none."""
    cores = len(os.sched_getaffinity(0))
    for threads in sorted({max(1, cores - 1), cores}):
        await _compare(threads, repeats)


async def _compare(threads: int, repeats: int) -> None:
    """Measures services and engine alone, turn by turn, and prints them with their ratio."""
    instance = InstanceConfig(threads=threads, max_batch_tokens=512, prefix_cache=False)
    spec = ClusterSpec(0, 1, instance, RouterConfig(colocated=True))
    rng = random.Random(0)
    served: dict[str, list[float]] = {"decode": [], "prefill": []}
    alone: dict[str, list[float]] = {"decode": [], "prefill": []}
    engine = _Alone(instance)
    async with LocalCluster(spec) as cluster:
        for _ in range(repeats + 1):
            for name, speed in (await _served(cluster.router_address, rng)).items():
                served[name].append(speed)
            for name, speed in engine.measure(rng).items():
                alone[name].append(speed)
    rows = []
    for name in ("decode", "prefill"):
        through, bare = served[name][1:], alone[name][1:]  # the first round warms up
        ratio = [a / b for a, b in zip(through, bare, strict=True)]
        rows.append((name, spread(through), spread(bare), spread(ratio, digits=2)))
    print_table(
        f"tokens/s, {threads} engine threads on {os.cpu_count()} cores: {SEQUENCES} sequences "
        f"decode at {CONTEXT} to {CONTEXT + NEW_TOKENS} tokens of context; one prompt of {PROMPT} "
        "tokens prefills",
        ("phase", "through the services", "engine alone", "ratio"),
        rows,
    )


async def _served(address: str, rng: random.Random) -> dict[str, float]:
    channel = open_channel(address)
    try:
        prompts = [random_prompt(rng, CONTEXT) for _ in range(SEQUENCES)]
        timelines = await asyncio.gather(*(generate(channel, p, NEW_TOKENS) for p in prompts))
        # From the moment when the last sequence has been prefilled: decoding alone.
        begin = max(timeline.tokens[0] for timeline in timelines)
        end = max(timeline.tokens[-1] for timeline in timelines)
        decoded = sum(1 for line in timelines for token in line.tokens if token > begin)
        single = await generate(channel, random_prompt(rng, PROMPT), 1)
    finally:
        await channel.close()
    return {"decode": decoded / (end - begin), "prefill": PROMPT / single.ttft}


class _Alone:
    """The same engine in this process, with nothing beside it."""

    def __init__(self, config: InstanceConfig) -> None:
        torch.set_num_threads(config.threads)
        self._engine: Engine = make_engine(config, load_engine(config), listener=None)
        self._count = 0

    def measure(self, rng: random.Random) -> dict[str, float]:
        for _ in range(SEQUENCES):
            self._add(random_prompt(rng, CONTEXT), NEW_TOKENS)
        emitted: dict[str, int] = {}
        begin, decoded = 0.0, 0
        while self._engine.has_work:
            for event in self._engine.step():
                emitted[event.key] = emitted.get(event.key, 0) + 1
                decoded += begin > 0
            if not begin and sum(count > 1 for count in emitted.values()) == SEQUENCES:
                begin = time.perf_counter()
        decode = decoded / (time.perf_counter() - begin)
        self._add(random_prompt(rng, PROMPT), 1)
        begin = time.perf_counter()
        while self._engine.has_work:
            self._engine.step()
        return {"decode": decode, "prefill": PROMPT / (time.perf_counter() - begin)}

    def _add(self, prompt: list[int], max_tokens: int) -> None:
        self._count += 1
        params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        request = EngineRequest(str(self._count), tuple(prompt), (), params, Work.BOTH)
        self._engine.add(request)
