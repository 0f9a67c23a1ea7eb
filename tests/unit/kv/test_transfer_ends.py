"""How a transfer ends: pulled, cancelled, withdrawn, expired; and what it leaves to others."""

import asyncio
import random
from dataclasses import replace

import pytest
import torch
from kv_pair import CONFIG, FIRST_TOKEN, LAYOUT, admitted, kv, pair, request_ref, until

from pdserve.errors import OutOfMemoryError, TransferError
from pdserve.kv.offer import Outcome
from pdserve.kv.wire import layout_to_proto
from pdserve.rpc.v1 import prefill_pb2

TOKENS = 50


async def opening():
    """What a decode says that opens a pull and then nothing more."""
    yield prefill_pb2.PullKvRequest(
        ref=request_ref("t"),
        open=prefill_pb2.PullOpen(
            transfer_id="t", layout=layout_to_proto(LAYOUT), decode_incarnation="D"
        ),
    )
    await asyncio.Event().wait()


@pytest.mark.parametrize("seed", range(4))
async def test_cancelled_pulls_leave_channel_and_blocks_usable(seed):
    """Cancels at random points of the transfer, among others that are to survive."""
    rng = random.Random(seed)
    async with pair() as p:
        opened = p.sender
        for i in range(8):
            doomed, other = list(range(24)), list(range(24, 48))
            p.offer(f"doomed{i}", doomed, 90)
            p.offer(f"other{i}", doomed, 90)
            stop_at = rng.randrange(90 * LAYOUT.token_bytes)
            passed = asyncio.Event()

            def progressed(landed, stop_at=stop_at, passed=passed):
                if landed >= stop_at:
                    passed.set()

            pull = asyncio.create_task(
                p.pull(f"doomed{i}", admitted(doomed, 0, 90), on_progress=progressed)
            )
            survivor = asyncio.create_task(p.pull(f"other{i}", admitted(other, 0, 90)))
            waiting = asyncio.create_task(passed.wait())
            await asyncio.wait({pull, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            pull.cancel()
            await asyncio.gather(pull, return_exceptions=True)
            await p.receiver.settled(f"doomed{i}")
            p.target.data[:, :, doomed] = 77.0
            await survivor
            assert torch.equal(kv(p.target, other, 0, 90), kv(p.source, doomed, 0, 90))
            assert bool((kv(p.target, doomed, 0, 96) == 77.0).all())
            opened.withdraw(f"doomed{i}")
            await opened.settled(f"doomed{i}")
        await until(lambda: not p.receiver.transfers)
        assert (p.sender.counts.channels, p.receiver.channels) == (1, 1)
        assert attempts_of(p) == {1}


def attempts_of(p):
    """Attempt numbers of the sender's living channels."""
    return {channel.attempt for channel in p.sender._channels._channels.values()}


async def test_the_last_ack_counts_though_the_call_ends_with_it():
    async with pair() as p:

        async def call(requests):
            async def grouped():
                acks = []
                async for request in requests:
                    if request.HasField("ack"):
                        acks.append(request)
                    else:
                        yield request
                yield acks[-1]

            async for response in p.call(grouped()):
                yield response

        offer = p.offer("t", range(20), TOKENS)
        await p.pull("t", admitted(range(20), 0, TOKENS), call)
        assert (await offer.ended()).outcome is Outcome.PULLED


async def test_a_decode_that_does_not_read_is_given_up():
    """Prefill's words are never taken; the transfer ends after a segment's timeout."""
    async with pair(config=replace(CONFIG, segment_timeout_s=0.2, connect_timeout_s=0.5)) as p:
        p.offer("t", range(20), TOKENS)

        async def never(_):
            await asyncio.Event().wait()

        with pytest.raises(TransferError, match="decode read nothing"):
            await p.sender.serve(opening(), never)


async def test_a_pull_that_is_cancelled_twice_is_settled_when_nothing_reads_its_blocks():
    async with pair(config=replace(CONFIG, connect_timeout_s=0.5)) as p:
        p.offer("t", range(20), TOKENS)
        serving = asyncio.create_task(p.sender.serve(opening(), lambda _: asyncio.sleep(0)))
        await until(lambda: p.sender.counts.transfers == 1)
        (transfer,) = transfers = p.sender._bindings["t"].transfers.values()
        with transfer.gate.passage():
            serving.cancel()
            await until(lambda: not transfers)
            serving.cancel()
            await asyncio.wait({serving})
            settled = asyncio.create_task(p.sender.settled("t"))
            await asyncio.sleep(0)
            assert not settled.done()
            assert p.sender.counts.transfers == 1
        await settled
        await until(lambda: not p.sender.counts.transfers)


async def test_a_pull_may_be_cancelled_before_it_is_admitted():
    async with pair() as p:
        offer = p.offer("t", range(20), TOKENS)
        pull = asyncio.create_task(p.pull("t", asyncio.get_running_loop().create_future()))
        await until(lambda: p.sender.counts.transfers == 1)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        await until(lambda: not p.receiver.transfers)
        await p.pull("t", admitted(range(20), 0, TOKENS))  # the offer stands
        assert (await offer.ended()).outcome is Outcome.PULLED


async def test_a_failed_admission_ends_the_pull_with_its_error():
    async with pair() as p:
        p.offer("t", range(20), TOKENS)
        admission = asyncio.get_running_loop().create_future()
        pull = asyncio.create_task(p.pull("t", admission))
        await until(lambda: p.sender.counts.transfers == 1)
        admission.set_exception(OutOfMemoryError("no blocks"))
        with pytest.raises(OutOfMemoryError, match="no blocks"):
            await pull


async def test_keep_alives_hold_the_lease_while_decode_waits_for_memory():
    """The wait lasts twice as long as the lease."""
    config = replace(CONFIG, lease_s=0.5)
    async with pair(config=config) as p:
        alive = 0

        async def call(requests):
            async def counted():
                nonlocal alive
                async for request in requests:
                    alive += request.HasField("keep_alive")
                    yield request

            async for response in p.call(counted()):
                yield response

        offer = p.offer("t", range(20), TOKENS)
        admission = asyncio.get_running_loop().create_future()
        pull = asyncio.create_task(p.pull("t", admission, call))
        await until(lambda: alive >= 6)
        admission.set_result(await admitted(range(20), 0, TOKENS))
        await pull
        assert (await offer.ended()).outcome is Outcome.PULLED


async def test_kv_that_nobody_pulls_expires():
    async with pair(config=replace(CONFIG, lease_s=0.1)) as p:
        offer = p.offer("t", range(20), TOKENS)
        assert (await offer.ended()).outcome is Outcome.EXPIRED
        assert not p.sender.withdraw("t")
        with pytest.raises(TransferError, match="no KV is offered as transfer 't'"):
            await p.pull("t", admitted(range(20), 0, TOKENS))


async def test_a_decode_that_falls_silent_takes_its_channel_with_it():
    """All has been sent, as far as the backend knows; nobody says that it has come."""
    async with pair(config=replace(CONFIG, lease_s=0.5)) as p:

        async def call(requests):
            async def silenced():
                async for request in requests:
                    if request.WhichOneof("request") in ("open", "begin"):
                        yield request

            async for response in p.call(silenced()):
                yield response

        offer = p.offer("t", range(20), TOKENS)
        pull = asyncio.create_task(p.pull("t", admitted(range(20), 0, TOKENS), call))
        assert (await offer.ended()).outcome is Outcome.EXPIRED
        await until(lambda: not p.sender.counts.transfers and not p.sender.counts.channels)
        await asyncio.gather(pull, return_exceptions=True)
        p.offer("next", range(20), TOKENS)
        await p.pull("next", admitted(range(20), 0, TOKENS))


async def test_there_is_no_lease_before_prefill_is_done():
    async with pair() as p:
        offer = p.offer("t", range(20), TOKENS, cached=0)
        offer.advance(0, 6, TOKENS, None)
        await asyncio.sleep(0)
        assert p.sender.counts.leases == 0
        offer.complete(FIRST_TOKEN)
        await until(lambda: p.sender.counts.leases == 1)


async def test_withdrawn_kv_fails_the_pull_and_is_let_go():
    async with pair() as p:
        p.offer("t", range(20), TOKENS, cached=20)
        landed = [0]
        pull = asyncio.create_task(
            p.pull("t", admitted(range(20), 0, TOKENS), on_progress=landed.append)
        )
        await until(lambda: landed[-1] == 20 * LAYOUT.token_bytes)
        assert p.sender.withdraw("t")
        await p.sender.settled("t")
        with pytest.raises(TransferError, match="the KV was released"):
            await pull
        assert not p.sender.withdraw("t")


async def test_pulling_anew_replaces_the_pull_before():
    async with pair() as p:
        p.offer("t", range(20), TOKENS)
        never = asyncio.get_running_loop().create_future()
        first = asyncio.create_task(p.pull("t", never))
        await until(lambda: p.sender.counts.transfers == 1)
        await p.pull("t", admitted(range(20), 0, TOKENS))
        with pytest.raises(TransferError, match="pulls the KV anew"):
            await first
