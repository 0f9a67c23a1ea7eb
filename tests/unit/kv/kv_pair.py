"""A sender and a receiver in one process, joined by real channels and an in-process PullKv."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch

from pdserve.kv.arrivals import Admission
from pdserve.kv.backend import Backend, make_backend
from pdserve.kv.config import TransferConfig
from pdserve.kv.layout import KvLayout
from pdserve.kv.offer import Offer
from pdserve.kv.pool import KvPool
from pdserve.kv.receiver import Receiver
from pdserve.kv.sender import Sender
from pdserve.rpc.v1 import prefill_pb2, types_pb2

CPU = torch.device("cpu")
LAYOUT = KvLayout("model", "float32", layers=6, kv_heads=4, head_dim=8, block_size=4)
# Small segments, so that every transfer has many.
CONFIG = TransferConfig(segment_bytes=4096, segment_timeout_s=5, connect_timeout_s=5)
FIRST_TOKEN = types_pb2.Token(id=7, index=0)
BLOCKS = 64

torch.set_num_threads(1)


def random_pool(
    layout: KvLayout, rank: int = 0, seed: int = 0, device: torch.device = CPU
) -> KvPool:
    """A pool for `rank`, filled with what every pool of the same seed holds."""
    pool = KvPool(layout.shard(rank), BLOCKS, device)
    generator = torch.Generator().manual_seed(seed)
    pool.data.copy_(torch.randn(pool.data.shape, generator=generator))
    return pool


def kv(pool: KvPool, blocks, begin: int, end: int) -> torch.Tensor:
    """[layers, 2, tokens, kv_heads, head_dim] of a sequence, copied."""
    return pool.data.flatten(2, 3)[:, :, pool.slots(blocks, begin, end)].clone()


def request_ref(name: str, incarnation: str = "P") -> types_pb2.RequestRef:
    return types_pb2.RequestRef(request_id=name, attempt=1, incarnation=incarnation)


def kv_source(name: str, incarnation: str = "P") -> types_pb2.KvSource:
    return types_pb2.KvSource(address="here", incarnation=incarnation, transfer_id=name)


def admitted(blocks, from_token: int, tokens: int) -> "asyncio.Future[Admission]":
    future = asyncio.get_running_loop().create_future()
    future.set_result(Admission(blocks, from_token, tokens))
    return future


@dataclass
class Pair:
    sender: Sender
    receiver: Receiver
    source: KvPool
    target: KvPool
    source_rank: int = 0

    def offer(self, name: str, blocks, tokens: int, cached: int | None = None) -> Offer:
        """An offer whose KV is complete, or ready up to `cached` tokens."""
        offer = self.sender.offer(name, request_ref(name), tokens)
        offer.place(blocks, tokens if cached is None else cached)
        if cached is None:
            offer.complete(FIRST_TOKEN)
        return offer

    async def pull(self, name: str, admission, call=None, on_progress=lambda _: None):
        return await self.receiver.pull(
            name,
            request_ref(name),
            kv_source(name),
            call or self.call,
            admission,
            source_rank=self.source_rank,
            on_progress=on_progress,
        )

    async def call(
        self, requests: AsyncIterator[prefill_pb2.PullKvRequest]
    ) -> AsyncGenerator[prefill_pb2.PullKvResponse, None]:
        """PullKv without gRPC: closing it cancels the server's side, as a broken call does."""
        responses: asyncio.Queue = asyncio.Queue(maxsize=4)

        async def serve() -> None:
            try:
                await self.sender.serve(requests, responses.put)
            finally:
                await responses.put(None)

        serving = asyncio.create_task(serve())
        try:
            while (response := await responses.get()) is not None:
                yield response
            await serving
        finally:
            serving.cancel()
            while not responses.empty():
                responses.get_nowait()
            await asyncio.gather(serving, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Lets the event loop run until `condition` holds; the test's timeout is the deadline."""
    while not condition():  # noqa: ASYNC110 (counts are read, they tell nobody)
        await asyncio.sleep(0.005)


@asynccontextmanager
async def pair(
    prefill: KvLayout = LAYOUT,
    decode: KvLayout = LAYOUT,
    ranks: tuple[int, int] = (0, 0),
    config: TransferConfig = CONFIG,
    prefill_backend: Backend | None = None,
    devices: tuple[torch.device, torch.device] = (CPU, CPU),
) -> AsyncIterator[Pair]:
    """Ends with every transfer, lease, offer and channel gone."""
    here, there = (make_backend(device, config) for device in devices)
    source = random_pool(prefill, ranks[0], 0, devices[0])
    target = random_pool(decode, ranks[1], 1, devices[1])
    sender = Sender("P", prefill, ranks[0], source, prefill_backend or here, config)
    receiver = Receiver("D", decode, ranks[1], target, there, config)
    await sender.start()
    try:
        yield Pair(sender, receiver, source, target, ranks[0])
        await until(lambda: not receiver.transfers and not sender.counts.transfers)
    finally:
        await asyncio.gather(sender.close(), receiver.close())
    counts = sender.counts
    assert (counts.offers, counts.leases, counts.transfers, counts.channels) == (0, 0, 0, 0)
    assert (receiver.transfers, receiver.channels) == (0, 0)
