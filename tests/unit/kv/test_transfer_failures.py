"""The other side is really killed, or really stopped: bounded, settled, and the next one works."""

import asyncio
import signal

import pytest
import torch
from kv_pair import until
from transfer_peer import arrived, line, process, pulling, receiving, sending
from transfer_process import finish, offer

from pdserve.errors import TransferError
from pdserve.kv.offer import Outcome
from tests.devices import DEVICES, nccl_host

# All that a failure may take: twice a segment and a connection, with room for a slow machine.
BOUND_S = {"cpu": 20, "cuda": 45}


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    for name, value in nccl_host().items():
        monkeypatch.setenv(name, value)
    return request.param


def strike_once(strike):
    """Called when the first segment has landed."""
    strikes = [strike]
    return lambda _: strikes.pop()() if strikes else None


def bound(device):
    return asyncio.timeout(BOUND_S[device.type])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_prefill_fails_in_the_middle(device, how):
    async with receiving(device) as receiver:
        async with process(device, "prefill", "P1") as child:
            address = await line(child)
            struck = []

            def strike():
                child.send_signal(how)
                struck.append(how)

            with pytest.raises(TransferError):
                async with bound(device):
                    await pulling(receiver, address, "t0", "P1", strike_once(strike))
            assert struck
            await receiver.settled("t0")
            before = receiver._shard.pool.data.clone()
            async with bound(device):
                await until(lambda: not receiver.transfers)
            assert torch.equal(receiver._shard.pool.data, before)
        async with process(device, "prefill", "P2") as child:
            await pulling(receiver, await line(child), "t0", "P2")
            assert arrived(receiver)


async def test_prefill_is_stopped_before_it_answers(device):
    async with receiving(device) as receiver, process(device, "prefill", "P") as child:
        address = await line(child)
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(TransferError, match="silent"):
            async with bound(device):
                await pulling(receiver, address, "t0", "P")
        child.send_signal(signal.SIGCONT)
        await pulling(receiver, address, "t0", "P")
        assert arrived(receiver)


async def test_a_prefill_that_was_stopped_serves_again_over_a_new_channel(device):
    async with receiving(device) as receiver, process(device, "prefill", "P") as child:
        address = await line(child)
        stop = strike_once(lambda: child.send_signal(signal.SIGSTOP))
        with pytest.raises(TransferError):
            async with bound(device):
                await pulling(receiver, address, "t0", "P", stop)
        child.send_signal(signal.SIGCONT)
        await pulling(receiver, address, "t0", "P")
        assert arrived(receiver)
        await pulling(receiver, address, "t1", "P")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_decode_fails_in_the_middle(device, how):
    async with sending(device) as (sender, address):
        lost = offer(sender, "t0", "P")
        async with process(device, "decode", address, "t0") as child:
            await until(lambda: sender.counts.transfers == 1)
            finish(lost)
            assert await line(child) == "landed"
            child.send_signal(how)
            async with bound(device):
                assert (await lost.ended()).outcome is Outcome.EXPIRED
                await sender.settled("t0")
                await until(lambda: not sender.counts.transfers and not sender.counts.channels)
        kept = offer(sender, "t1", "P")
        async with process(device, "decode", address, "t1"):
            await until(lambda: sender.counts.transfers == 1)
            finish(kept)
            assert (await kept.ended()).outcome is Outcome.PULLED
