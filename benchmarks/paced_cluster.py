"""Clusters of real services whose engines only take time, and requests that arrive in the open."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
from grpc import aio

from benchmarks.client import random_prompt
from pdserve.cli.local_cluster import ROUTER, ClusterSpec, LocalCluster
from pdserve.cli.tethered import command
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from pdserve.workload.workload import Workload
from tests.doubles.shaped_instance import Shape, shaped_command

_TIMEOUT_S = 120.0
INSTANCE = InstanceConfig(threads=1, max_batch_tokens=1024, prefix_cache=False, log_level="error")


@dataclass(slots=True)
class Answer:
    """One request: seconds since it was sent, the placements, and why it was refused if it was."""

    ttft_s: float = 0.0
    tokens_at: list[float] = field(default_factory=list)
    attempts: Sequence[types_pb2.Attempt] = ()
    refusal: str = ""

    @property
    def first_gap_s(self) -> float:
        """From the first token to the second: where a hand-off shows."""
        return self.tokens_at[1] - self.tokens_at[0]

    @property
    def tpot_s(self) -> float:
        """Mean gap between tokens."""
        return (self.tokens_at[-1] - self.tokens_at[0]) / (len(self.tokens_at) - 1)


@asynccontextmanager
async def paced_cluster(
    spec: ClusterSpec, shape: Shape, differing: Mapping[str, Shape]
) -> AsyncIterator[aio.Channel]:
    """A channel to the router of a cluster of such instances, each warm."""
    cluster = LocalCluster(spec, command_of=partial(_command, shape, differing))
    async with cluster, open_channel(cluster.router_address) as channel:
        await _warm_up(channel)
        yield channel


async def replay(channel: aio.Channel, workload: Workload, slo: types_pb2.Slo) -> list[Answer]:
    """Sends each request at its time, whatever has become of those before."""
    rng = random.Random(1)
    stub = router_pb2_grpc.InferenceStub(channel)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        rows = zip(workload.arrival_s, workload.prompt_tokens, workload.output_tokens, strict=True)
        for at, prompt_tokens, output_tokens in rows:
            await asyncio.sleep(began + float(at) - time.monotonic())
            request = _request(random_prompt(rng, int(prompt_tokens)), int(output_tokens), slo)
            tasks.append(group.create_task(_answer(stub, request)))
    return [task.result() for task in tasks]


def router(placer: str, **options: object) -> RouterConfig:
    """The router of a comparison: nothing but how it places differs."""
    return RouterConfig(placer=placer, http=False, log_level="error", **options)  # type: ignore[arg-type]


async def _warm_up(channel: aio.Channel) -> None:
    """Requests of several lengths, so that channels are open and instances know their costs."""
    rng = random.Random(2)
    stub = router_pb2_grpc.InferenceStub(channel)
    for tokens in (64, 512, 128, 1024, 256) * 4:
        await _answer(stub, _request(random_prompt(rng, tokens), 8, types_pb2.Slo()))


def _request(prompt: list[int], tokens: int, slo: types_pb2.Slo) -> router_pb2.GenerateRequest:
    return router_pb2.GenerateRequest(
        token_ids=router_pb2.TokenIds(ids=prompt),
        sampling=types_pb2.Sampling(temperature=0, max_tokens=tokens, ignore_eos=True),
        slo=slo,
    )


async def _answer(
    stub: "router_pb2_grpc.InferenceAsyncStub", request: router_pb2.GenerateRequest
) -> Answer:
    answer = Answer()
    sent = time.monotonic()
    try:
        async for event in stub.Generate(request, timeout=_TIMEOUT_S):
            now = time.monotonic() - sent
            answer.tokens_at += [now] * len(event.delta.tokens)
            if event.HasField("finished"):
                answer.attempts = event.finished.attempts
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        answer.refusal = error.details() or ""
        return answer
    answer.ttft_s = answer.tokens_at[0]
    return answer


def _command(shape: Shape, differing: Mapping[str, Shape], role: str, *flags: str) -> Sequence[str]:
    if role == ROUTER:
        return command(role, *flags)
    name = next(flag.partition("=")[2] for flag in flags if flag.startswith("--name="))
    return shaped_command(differing.get(name, shape), role, *flags)
