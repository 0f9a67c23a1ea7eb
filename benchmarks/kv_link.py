"""How fast KV moves between two processes: pulls as decode makes them, over gRPC and a channel.

On CPU the bytes go over gloo. Two processes that share one GPU are told to NCCL as two hosts, which
it joins by TCP on loopback: set-up and failures are as between hosts, the bandwidth is loopback's.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch
from grpc import aio

from benchmarks.client import TIMEOUT_S
from benchmarks.overhead_process import ROOT
from benchmarks.report import print_table, spread
from pdserve.instance.loading import resolve_device
from pdserve.kv.arrivals import Admission
from pdserve.kv.backend import make_backend
from pdserve.kv.config import TransferConfig
from pdserve.kv.incoming import PullCall
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.kv.receiver import Receiver
from pdserve.kv.sender import Sender
from pdserve.rpc.v1 import prefill_pb2, prefill_pb2_grpc, types_pb2
from tests.devices import nccl_host

# The KV of Llama 3.1 8B: 128 KiB a token.
LAYOUT = KvLayout("8b", "bfloat16", layers=32, kv_heads=8, head_dim=128, block_size=16)
TOKENS = 1024
PULLS = 8
SEGMENT_MIB = (1, 8, 32)
FIRST_TOKEN = types_pb2.Token(id=1)


@dataclass(frozen=True, slots=True)
class Pull:
    """Seconds of one pull: in all, until the channel was there, and with bytes on their way."""

    wall_s: float
    wait_s: float
    link_s: float


async def run(repeats: int, device: str = "auto") -> None:
    """Prints seconds and GB/s of pulls, by the size of segments."""
    chosen = resolve_device(device)
    size = TOKENS * LAYOUT.token_bytes
    rows = []
    for mebibytes in SEGMENT_MIB:
        rounds = [await _pulls(chosen, mebibytes << 20) for _ in range(repeats)]
        firsts = [pulls[0] for pulls in rounds]
        later = [pull for pulls in rounds for pull in pulls[1:]]
        rows.append(
            (
                f"{mebibytes} MiB",
                spread([each.wall_s * 1e3 for each in firsts], digits=0),
                spread([each.wait_s * 1e3 for each in firsts], digits=0),
                spread([each.wall_s * 1e3 for each in later], digits=0),
                f"{size / statistics.median(each.link_s for each in later) / 1e9:.2f}",
            )
        )
    title = f"Pulls of {TOKENS} tokens, {size / 1e6:.0f} MB, on {chosen}: ms, and GB/s of the link"
    columns = ("segments", "first pull", "of that, set-up", "another pull", "GB/s")
    print_table(title, columns, rows)


async def _pulls(device: torch.device, segment_bytes: int) -> list[Pull]:
    """The pulls of one decode process from one prefill process, one after the other."""
    config = _config(segment_bytes)
    os.environ.update(nccl_host())  # NCCL reads it when it first connects
    async with _prefill(device, segment_bytes) as address, aio.insecure_channel(address) as channel:
        stub = prefill_pb2_grpc.PrefillStub(channel)
        pool = KvPool(LAYOUT, _blocks(), device)
        receiver = Receiver("D", LAYOUT, 0, pool, make_backend(device, config), config)
        try:
            return [await _pull(receiver, stub, f"t{each}") for each in range(PULLS)]
        finally:
            await receiver.close()


async def _pull(receiver: Receiver, stub: "prefill_pb2_grpc.PrefillAsyncStub", name: str) -> Pull:
    admission: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
    admission.set_result(Admission(range(_blocks()), 0, TOKENS))
    source = types_pb2.KvSource(address="", incarnation="P", transfer_id=name)
    began = time.monotonic()
    result = await receiver.pull(name, _ref(name), source, _calling(stub), admission)
    assert result.bytes == TOKENS * LAYOUT.token_bytes
    return Pull(time.monotonic() - began, result.wait_s, result.link_s)


def _calling(stub: "prefill_pb2_grpc.PrefillAsyncStub") -> PullCall:
    async def call(
        requests: AsyncIterator[prefill_pb2.PullKvRequest],
    ) -> AsyncGenerator[prefill_pb2.PullKvResponse, None]:
        async for response in stub.PullKv(requests, timeout=TIMEOUT_S):
            yield response

    return call


@asynccontextmanager
async def _prefill(device: torch.device, segment_bytes: int) -> AsyncIterator[str]:
    """A process that offers what is pulled; its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.kv_link", str(device), str(segment_bytes)),
        cwd=ROOT,
        env={**os.environ, **nccl_host()},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


def _config(segment_bytes: int) -> TransferConfig:
    return TransferConfig(
        segment_bytes=segment_bytes, segment_timeout_s=10, connect_timeout_s=30, lease_s=120
    )


def _blocks() -> int:
    return TOKENS // LAYOUT.block_size


def _ref(name: str) -> types_pb2.RequestRef:
    return types_pb2.RequestRef(request_id=name, attempt=1, incarnation="P")


class _Servicer(prefill_pb2_grpc.PrefillServicer):
    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def PullKv(  # noqa: N802
        self,
        requests: AsyncIterator[prefill_pb2.PullKvRequest],
        context: aio.ServicerContext[prefill_pb2.PullKvRequest, prefill_pb2.PullKvResponse],
    ) -> None:
        await self._sender.serve(requests, context.write)


async def _offer(device: torch.device, segment_bytes: int) -> None:
    """Offers everything, prints the address, and serves until it is ended."""
    config = _config(segment_bytes)
    pool = KvPool(LAYOUT, _blocks(), device)
    pool.data.normal_()
    sender = Sender("P", LAYOUT, 0, pool, make_backend(device, config), config)
    await sender.start()
    for name in (f"t{each}" for each in range(PULLS)):
        offer = sender.offer(name, _ref(name), TOKENS)
        offer.place(range(_blocks()), TOKENS)
        offer.complete(FIRST_TOKEN)
    server = aio.server()
    prefill_pb2_grpc.add_PrefillServicer_to_server(_Servicer(sender), server)
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_offer(torch.device(sys.argv[1]), int(sys.argv[2])))
