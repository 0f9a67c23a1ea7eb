"""The same transfers over NCCL: between two processes on one GPU, and between two GPUs."""

import asyncio

import pytest
import torch
from kv_pair import CONFIG, FIRST_TOKEN, LAYOUT, admitted, kv, pair
from transfer_peer import arrived, line, process, pulling, receiving

from tests.devices import CUDA, nccl_host, needs_gpu

pytestmark = pytest.mark.gpu
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(autouse=True)
def a_host_of_its_own(monkeypatch):
    for name, value in nccl_host().items():
        monkeypatch.setenv(name, value)


@needs_gpu
async def test_contents_arrive_bit_for_bit():
    async with receiving(CUDA) as receiver, process(CUDA, "prefill", "P") as child:
        address = await line(child)
        for name in ("t0", "t1"):
            await pulling(receiver, address, name, "P")
            assert arrived(receiver)
            receiver._shard.pool.data.zero_()
        assert receiver.channels == 1


@needs_gpu
async def test_a_segment_waits_for_the_engine_s_writes():
    async with receiving(CUDA) as receiver, process(CUDA, "behind", "P") as child:
        await pulling(receiver, await line(child), "t0", "P")
        assert arrived(receiver)


@needs_gpu
async def test_a_cancelled_pull_leaves_the_channel_usable():
    async with receiving(CUDA) as receiver, process(CUDA, "prefill", "P") as child:
        address = await line(child)
        begun = asyncio.Event()
        pull = asyncio.create_task(
            pulling(receiver, address, "t0", "P", on_progress=lambda _: begun.set())
        )
        await begun.wait()
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        await receiver.settled("t0")
        await pulling(receiver, address, "t1", "P")
        assert arrived(receiver)
        assert receiver.channels == 1


def gpus():
    return pair(devices=(torch.device("cuda", 0), torch.device("cuda", 1)), config=CONFIG)


@two_gpus
async def test_contents_arrive_on_another_gpu():
    async with gpus() as p:
        for name in ("a", "b", "c"):
            p.offer(name, range(20), 50)
            result = await p.pull(name, admitted(range(20, 40), 0, 50))
            assert result.bytes == 50 * LAYOUT.token_bytes
            sent = kv(p.source, range(20), 0, 50).cpu()
            assert torch.equal(kv(p.target, range(20, 40), 0, 50).cpu(), sent)


@two_gpus
async def test_a_segment_for_another_gpu_waits_for_the_engine_s_writes():
    async with gpus() as p:
        blocks = list(range(20))
        offer = p.offer("t", blocks, 50, cached=0)
        pull = asyncio.create_task(p.pull("t", admitted(blocks, 0, 50)))
        with torch.cuda.device(0), torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(50_000_000)  # keeps the writes waiting on the device
            p.source.data.fill_(3.0)
            offer.advance(0, LAYOUT.layers, 50, p.source.mark())
        offer.complete(FIRST_TOKEN)
        await pull
        assert bool((kv(p.target, blocks, 0, 50) == 3.0).all())
