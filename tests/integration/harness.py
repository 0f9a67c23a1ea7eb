"""What integration tests need: requests, their results, and proof that nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import torch
from grpc import aio

from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.cli.tethered import command
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import (
    decode_pb2_grpc,
    prefill_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    types_pb2,
)
from tests.devices import nccl_host

TIMEOUT_S = 100.0
IDLE_TIMEOUT_S = 20.0
START_TIMEOUT_S = 90.0
# Of several instances on one GPU, each.
GPU_KV_BYTES = 1 << 30
# Where no failure is injected, a machine that is busy elsewhere must not look like one.
PATIENCE_S = 60.0
PATIENT = InstanceConfig(
    threads=1, segment_timeout_s=PATIENCE_S, connect_timeout_s=PATIENCE_S, lease_s=PATIENCE_S
)


@dataclass(slots=True)
class Answer:
    """What a client received."""

    text: str = ""
    tokens: list[types_pb2.Token] = field(default_factory=list)
    finished: router_pb2.Finished | None = None

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def end(self) -> router_pb2.Finished:
        assert self.finished is not None, "the stream ended without a finish"
        return self.finished


def greedy(max_tokens: int, **options: object) -> types_pb2.Sampling:
    return types_pb2.Sampling(temperature=0, max_tokens=max_tokens, **options)


def by_ids(ids: Sequence[int], sampling: types_pb2.Sampling) -> router_pb2.GenerateRequest:
    return router_pb2.GenerateRequest(token_ids=router_pb2.TokenIds(ids=ids), sampling=sampling)


async def generate(channel: aio.Channel, request: router_pb2.GenerateRequest) -> Answer:
    """Reads a whole answer; every token must come once and in order."""
    answer = Answer()
    stub = router_pb2_grpc.InferenceStub(channel)
    async for event in stub.Generate(request, timeout=TIMEOUT_S):
        assert answer.finished is None, "something came after the finish"
        if event.HasField("finished"):
            answer.finished = event.finished
            continue
        answer.text += event.delta.text
        for token in event.delta.tokens:
            assert token.index == len(answer.tokens), "a token is missing or came twice"
            answer.tokens.append(token)
    assert answer.end.output_tokens == len(answer.tokens)
    return answer


async def generate_all(
    channel: aio.Channel, requests: Sequence[router_pb2.GenerateRequest]
) -> list[Answer]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(generate(channel, request)) for request in requests]
    return [task.result() for task in tasks]


def on_device(instance: InstanceConfig, device: torch.device) -> InstanceConfig:
    """`instance` on `device` in float32, in which an answer does not depend on its batch."""
    if device.type == "cpu":
        return replace(instance, device="cpu")
    return replace(instance, device=str(device), dtype="float32", kv_memory_bytes=GPU_KV_BYTES)


def _on_a_host_of_its_own(role: str, *flags: str) -> tuple[str, ...]:
    """The command line of a process, for `LocalCluster`."""
    variables = (f"{name}={value}" for name, value in nccl_host().items())
    return ("env", *variables, *command(role, *flags))


@asynccontextmanager
async def cluster(
    prefill: int,
    decode: int,
    instance: InstanceConfig | None = None,
    router: RouterConfig | None = None,
) -> AsyncIterator[tuple[LocalCluster, aio.Channel]]:
    """A local cluster of the real model and a channel to its router; all may share one GPU."""
    spec = ClusterSpec(
        prefill,
        decode,
        instance or PATIENT,
        router or RouterConfig(colocated=prefill == 0, silence_timeout_s=PATIENCE_S),
        START_TIMEOUT_S,
    )
    async with LocalCluster(spec, command_of=_on_a_host_of_its_own) as started:
        channel = open_channel(started.router_address)
        try:
            yield started, channel
        finally:
            await channel.close()


async def report(address: str, role: str) -> types_pb2.LoadReport:
    """An instance's load, asked of itself."""
    channel = open_channel(address)
    try:
        stubs = {"prefill": prefill_pb2_grpc.PrefillStub, "decode": decode_pb2_grpc.DecodeStub}
        call = stubs[role](channel).WatchLoad(types_pb2.WatchLoadRequest(), timeout=TIMEOUT_S)
        async for first in call:
            call.cancel()
            return first
    finally:
        await channel.close()
    raise AssertionError(f"{address} reported nothing")


def left_behind(load: types_pb2.LoadReport) -> dict[str, int]:
    """What an idle instance must not have. Cached blocks and warm channels are not among it."""
    counts = {
        name: getattr(load, name)
        for name in ("waiting_requests", "running_requests", "transfers", "leases", "tasks")
    }
    counts |= {"active": load.blocks.active, "quarantined": load.blocks.quarantined}
    return {name: count for name, count in counts.items() if count}


async def assert_nothing_left(started: LocalCluster, *, except_for: Sequence[str] = ()) -> None:
    """Every living instance gets rid of everything, within a bound; no channel leads nowhere."""
    living = [
        process
        for name, process in started.processes.items()
        if process.role != "router" and process.return_code is None and name not in except_for
    ]
    left: dict[str, dict[str, int]] = {}
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            while True:
                loads = {each.name: await report(each.address, each.role) for each in living}
                left = {name: left_behind(load) for name, load in loads.items()}
                if not any(left.values()):
                    break
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"left behind: {left}") from None
    for load in loads.values():
        assert load.channels <= len(started.processes) - 1
