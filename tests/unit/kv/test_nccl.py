"""The same transfers over NCCL; a communicator needs two GPUs."""

import asyncio

import pytest
import torch
from kv_pair import CONFIG, FIRST_TOKEN, LAYOUT, admitted, kv, pair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
TOKENS = 50


def gpus():
    return pair(devices=(torch.device("cuda", 0), torch.device("cuda", 1)), config=CONFIG)


async def test_contents_arrive_bit_for_bit():
    async with gpus() as p:
        for name in ("a", "b", "c"):
            p.offer(name, range(20), TOKENS)
            result = await p.pull(name, admitted(range(20, 40), 0, TOKENS))
            assert result.bytes == TOKENS * LAYOUT.token_bytes
            sent = kv(p.source, range(20), 0, TOKENS).cpu()
            assert torch.equal(kv(p.target, range(20, 40), 0, TOKENS).cpu(), sent)


async def test_a_segment_waits_for_the_engine_s_writes():
    async with gpus() as p:
        blocks = list(range(20))
        offer = p.offer("t", blocks, TOKENS, cached=0)
        pull = asyncio.create_task(p.pull("t", admitted(blocks, 0, TOKENS)))
        with torch.cuda.device(0), torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(50_000_000)  # keeps the writes waiting on the device
            p.source.data.fill_(3.0)
            offer.advance(0, LAYOUT.layers, TOKENS, p.source.mark())
        offer.complete(FIRST_TOKEN)
        await pull
        assert bool((kv(p.target, blocks, 0, TOKENS) == 3.0).all())


async def test_a_cancelled_pull_leaves_the_channel_usable():
    async with gpus() as p:
        p.offer("doomed", range(50), 190)
        begun = asyncio.Event()
        pull = asyncio.create_task(
            p.pull("doomed", admitted(range(50), 0, 190), on_progress=lambda _: begun.set())
        )
        await begun.wait()
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        await p.receiver.settled("doomed")
        p.offer("next", range(20), TOKENS)
        await p.pull("next", admitted(range(20), 0, TOKENS))
        sent = kv(p.source, range(20), 0, TOKENS).cpu()
        assert torch.equal(kv(p.target, range(20), 0, TOKENS).cpu(), sent)
        assert (p.sender.counts.channels, p.receiver.channels) == (1, 1)
