"""The other side is really killed, or really stopped: bounded, settled, and the next one works."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import torch
from kv_pair import CPU, LAYOUT, admitted, kv, kv_source, random_pool, request_ref, until
from transfer_process import CONFIG, TOKENS, calling, finish, offer, serving

from pdserve.errors import TransferError
from pdserve.kv.backend import make_backend
from pdserve.kv.offer import Outcome
from pdserve.kv.receiver import Receiver
from pdserve.kv.sender import Sender

SCRIPT = Path(__file__).with_name("transfer_process.py")
# All that a failure may take: twice a segment and a connection, with room for a slow machine.
BOUND_S = 20


@asynccontextmanager
async def process(*arguments):
    """A child process; killed at the end, whatever its state."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def line(child):
    return (await child.stdout.readline()).decode().strip()


@asynccontextmanager
async def receiving():
    receiver = Receiver(
        "D", LAYOUT, 0, random_pool(LAYOUT, seed=1), make_backend(CPU, CONFIG), CONFIG
    )
    try:
        yield receiver
    finally:
        await receiver.close()
        assert (receiver.transfers, receiver.channels) == (0, 0)


@asynccontextmanager
async def sending():
    """A sender with its gRPC server's address."""
    backend = make_backend(CPU, CONFIG)
    sender = Sender("P", LAYOUT, 0, random_pool(LAYOUT), backend, CONFIG)
    await sender.start()
    server, address = await serving(sender)
    try:
        yield sender, address
    finally:
        await sender.close()
        await server.stop(grace=1)
        assert (sender.counts.transfers, sender.counts.channels) == (0, 0)


def pulling(receiver, address, transfer, incarnation, on_progress=lambda _: None, tokens=TOKENS):
    return receiver.pull(
        transfer,
        request_ref(transfer, incarnation),
        kv_source(transfer, incarnation),
        calling(address),
        admitted(range(50), 0, tokens),
        on_progress=on_progress,
    )


def arrived(receiver):
    mine = kv(receiver._shard.pool, range(50), 0, TOKENS)
    return torch.equal(mine, kv(random_pool(LAYOUT), range(50), 0, TOKENS))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_prefill_fails_in_the_middle(how):
    async with receiving() as receiver:
        async with process("prefill", "P1") as child:
            address = await line(child)
            strike = [child.send_signal]
            with pytest.raises(TransferError):
                async with asyncio.timeout(BOUND_S):
                    await pulling(
                        receiver,
                        address,
                        "t0",
                        "P1",
                        on_progress=lambda _: strike.pop()(how) if strike else None,
                    )
            assert not strike
            await receiver.settled("t0")
            before = receiver._shard.pool.data.clone()
            async with asyncio.timeout(BOUND_S):
                await until(lambda: not receiver.transfers)
            assert torch.equal(receiver._shard.pool.data, before)
        async with process("prefill", "P2") as child:
            await pulling(receiver, await line(child), "t0", "P2")
            assert arrived(receiver)


async def test_prefill_is_stopped_before_it_answers():
    async with receiving() as receiver, process("prefill", "P") as child:
        address = await line(child)
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(TransferError, match="silent"):
            async with asyncio.timeout(BOUND_S):
                await pulling(receiver, address, "t0", "P")
        child.send_signal(signal.SIGCONT)
        await pulling(receiver, address, "t0", "P")
        assert arrived(receiver)


async def test_a_prefill_that_was_stopped_serves_again_over_a_new_channel():
    async with receiving() as receiver, process("prefill", "P") as child:
        address = await line(child)
        strike = [child.send_signal]
        with pytest.raises(TransferError):
            async with asyncio.timeout(BOUND_S):
                await pulling(
                    receiver,
                    address,
                    "t0",
                    "P",
                    on_progress=lambda _: strike.pop()(signal.SIGSTOP) if strike else None,
                )
        child.send_signal(signal.SIGCONT)
        await pulling(receiver, address, "t0", "P")
        assert arrived(receiver)
        await pulling(receiver, address, "t1", "P")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_decode_fails_in_the_middle(how):
    async with sending() as (sender, address):
        lost = offer(sender, "t0", "P")
        async with process("decode", address, "t0") as child:
            await until(lambda: sender.counts.transfers == 1)
            finish(lost)
            assert await line(child) == "landed"
            child.send_signal(how)
            async with asyncio.timeout(BOUND_S):
                assert (await lost.ended()).outcome is Outcome.EXPIRED
                await sender.settled("t0")
                await until(lambda: not sender.counts.transfers and not sender.counts.channels)
        async with receiving() as receiver:
            finish(offer(sender, "t1", "P"))
            await pulling(receiver, address, "t1", "P")
            assert arrived(receiver)
