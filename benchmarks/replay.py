"""Replays a workload against a router, open-loop: requests go out when due, come what may."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from grpc import aio

from benchmarks.client import Timeline, generate, random_prompt
from pdserve.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the client saw of one request: seconds from when it was due, and between tokens."""

    ttft_s: float
    tpot_s: float


async def replay(channel: aio.Channel, workload: Workload, rng: random.Random) -> list[Replayed]:
    """Sends each request when it is due and reads all of them to their ends.

    Prompts have exactly their tokens and share no prefix, outputs exactly theirs, greedily chosen.
    A generator that is used again draws other prompts, which no prefix cache has seen.
    """
    prompts = [random_prompt(rng, tokens) for tokens in workload.prompt_tokens.tolist()]
    began = time.perf_counter()
    due = (began + workload.arrival_s - workload.arrival_s[0]).tolist()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_send(channel, when, prompt, tokens))
            for when, prompt, tokens in zip(
                due, prompts, workload.output_tokens.tolist(), strict=True
            )
        ]
    return [_seen(when, task.result()) for when, task in zip(due, tasks, strict=True)]


async def _send(
    channel: aio.Channel, due: float, prompt: Sequence[int], output_tokens: int
) -> Timeline:
    await asyncio.sleep(due - time.perf_counter())
    return await generate(channel, list(prompt), output_tokens)


def _seen(due: float, timeline: Timeline) -> Replayed:
    """From `due`, not from when it was sent: a client that falls behind must not hide it."""
    gaps = max(1, len(timeline.tokens) - 1)
    return Replayed(
        ttft_s=timeline.tokens[0] - due,
        tpot_s=(timeline.tokens[-1] - timeline.tokens[0]) / gaps,
    )
