"""The failure contract with the real model; test_matrix.py has all of it.

Every test sends the same requests to two prefill and two decode instances, kills one that is its
own, at a moment of its own, and demands the very tokens of an undisturbed run.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from grpc import aio

from pdserve.cli.local_cluster import LocalCluster
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc
from tests.devices import DEVICES
from tests.integration.harness import (
    TIMEOUT_S,
    assert_nothing_left,
    by_ids,
    cluster,
    generate_all,
    greedy,
    on_device,
)

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(150)]

REQUESTS, PROMPT_TOKENS, NEW_TOKENS = 4, 120, 24
SILENCE_S = 2.0
# From a failure until the last request that it hit has its next token: finding out, prefilling
# prompt and emitted tokens again beside everything else, and the noise of a shared machine.
RECOVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Fixture:
    """A running cluster, the requests, and what an undisturbed run answered."""

    cluster: LocalCluster
    channel: aio.Channel
    requests: list[router_pb2.GenerateRequest]
    reference: list[list[int]]


def make_requests() -> list[router_pb2.GenerateRequest]:
    rng = random.Random(7)
    prompts = [[rng.randrange(1000, 40000) for _ in range(PROMPT_TOKENS)] for _ in range(REQUESTS)]
    return [by_ids(prompt, greedy(NEW_TOKENS, ignore_eos=True)) for prompt in prompts]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=DEVICES)
async def fixture(request: pytest.FixtureRequest) -> AsyncIterator[Fixture]:
    # No prefix cache: every run computes and moves everything, as the first one does.
    instance = InstanceConfig(
        threads=1, prefix_cache=False, max_batch_tokens=128, layer_group=5, lease_s=4,
        segment_timeout_s=1.5, connect_timeout_s=2, drain_grace_s=2,
    )  # fmt: skip
    router = RouterConfig(silence_timeout_s=SILENCE_S, drain_grace_s=2)
    async with cluster(2, 2, on_device(instance, request.param), router) as (started, channel):
        requests = make_requests()
        reference = [answer.ids for answer in await generate_all(channel, requests)]
        yield Fixture(started, channel, requests, reference)


class Progress:
    """The tokens of all requests as they arrive, and a way to wait for a moment among them."""

    def __init__(self, count: int) -> None:
        self.ids: list[list[int]] = [[] for _ in range(count)]
        self.last_token_at = [0.0] * count
        self.longest_gap = [0.0] * count
        self._changed = asyncio.Event()

    def add(self, index: int, ids: list[int]) -> None:
        now = time.monotonic()
        if self.last_token_at[index]:
            gap = now - self.last_token_at[index]
            self.longest_gap[index] = max(gap, self.longest_gap[index])
        self.last_token_at[index] = now
        self.ids[index] += ids
        self._changed.set()

    async def until(self, reached: Callable[[list[int]], bool]) -> None:
        """Returns once `reached` holds of the numbers of tokens that have arrived."""
        async with asyncio.timeout(TIMEOUT_S):
            while not reached([len(ids) for ids in self.ids]):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def under_way(fixture: Fixture) -> AsyncIterator[Progress]:
    """All requests run while the context does; leaving it waits for every answer."""
    progress = Progress(len(fixture.requests))

    async def follow(index: int, request: router_pb2.GenerateRequest) -> None:
        stub = router_pb2_grpc.InferenceStub(fixture.channel)
        async for event in stub.Generate(request, timeout=TIMEOUT_S):
            progress.add(index, [token.id for token in event.delta.tokens])

    async with asyncio.TaskGroup() as group:
        for index, request in enumerate(fixture.requests):
            group.create_task(follow(index, request))
        yield progress


async def assert_recovered(fixture: Fixture, progress: Progress) -> None:
    assert progress.ids == fixture.reference
    assert max(progress.longest_gap) < RECOVERY_S
    await assert_nothing_left(fixture.cluster)


async def test_prefill_dies_while_its_kv_is_pulled(fixture: Fixture) -> None:
    async with under_way(fixture) as progress:
        await progress.until(any)
        await fixture.cluster.kill("prefill-1")
    await assert_recovered(fixture, progress)


async def test_decode_dies_while_decoding(fixture: Fixture) -> None:
    async with under_way(fixture) as progress:
        await progress.until(lambda counts: min(counts) >= 3)
        await fixture.cluster.kill("decode-0")
    await assert_recovered(fixture, progress)
