"""The asyncio side of an engine: bounds, order, failure, and blocks that settle late."""

import asyncio

import pytest
from context_runner import ContextRunner, GatedRunner, a_request, alone, build_engine

from pdserve.engine.events import Admitted
from pdserve.errors import EngineError, InvalidRequestError, OverloadedError, UnavailableError
from pdserve.instance.engine_host import EngineHost, EventStream
from pdserve.scheduling.sequence import Work

PATIENCE_S = 30


@pytest.fixture
async def open_host():
    hosts = []

    def open_one(runner=None, *, max_waiting=8, **engine):
        hosts.append(EngineHost(build_engine(runner or ContextRunner(4), **engine), max_waiting))
        return hosts[-1]

    yield open_one
    for host in hosts:
        assert await host.close(PATIENCE_S)


@pytest.fixture(autouse=True)
async def patience():
    async with asyncio.timeout(PATIENCE_S):
        yield


async def collect(events):
    """Admission, then the tokens up to the last."""
    assert isinstance(await events.next(), Admitted)
    tokens = []
    while True:
        event = await events.next()
        tokens.append(event.token.token_id)
        if event.finish_reason is not None:
            return tokens


async def generate(host, request):
    with host.request(request) as events:
        return await collect(events)


async def blocks_of(host):
    """Blocks by state after every command so far."""
    counts = asyncio.get_running_loop().create_future()

    def answer(engine):
        value = engine.load().blocks
        counts.get_loop().call_soon_threadsafe(counts.set_result, value)

    host.submit(answer)
    return await counts


async def test_many_requests_at_once_get_their_own_tokens_in_order(open_host):
    host = open_host(max_waiting=64, blocks=24)
    requests = [a_request(str(n), range(n, n + 3), max_tokens=1 + n) for n in range(20)]
    outputs = await asyncio.gather(*(generate(host, request) for request in requests))
    assert outputs == [alone(request, 96) for request in requests]
    assert host.requests == 0
    assert (await blocks_of(host)).active == 0


async def test_events_that_piled_up_come_in_one_batch(open_host):
    host = open_host()
    request = a_request("r", max_tokens=6)
    with host.request(request) as events:
        batch = []
        while len(batch) < 7:
            batch += await events.next_batch()
    assert [event.token.token_id for event in batch[1:]] == alone(request, 128)


async def test_more_requests_than_may_wait_are_refused_with_the_limit(open_host):
    runner = GatedRunner(4)
    host = open_host(runner, max_waiting=2, max_seqs=1)
    with host.request(a_request("running", max_tokens=1)) as running:
        await running.next()
        with host.request(a_request("a")), host.request(a_request("b")):
            with pytest.raises(OverloadedError) as caught, host.request(a_request("c")):
                pass
            assert caught.value.limit == "max_waiting=2"
            assert caught.value.retry_after_s > 0
            assert host.requests == 3
        with host.request(a_request("c")):
            assert host.requests == 2
    runner.gate.release(10)


async def test_a_key_is_taken_until_it_is_released_and_settled(open_host):
    host, landed = open_host(), asyncio.Event()
    request = a_request("k", work=Work.PREFILL)
    with host.request(request, landed.wait) as events:
        await events.next()
        with pytest.raises(InvalidRequestError, match="k is already"), host.request(request):
            pass
    with pytest.raises(InvalidRequestError), host.request(request):
        pass
    landed.set()
    await settled()
    await blocks_of(host)
    assert await generate(host, a_request("k")) == alone(a_request("k"), 128)
    assert not host.failure.done()


async def settled():
    """Returns when no ended request has bytes that move any more."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("settle ")]
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_blocks_are_quarantined_until_what_moves_in_them_has_settled(open_host):
    host, landed = open_host(blocks=8), asyncio.Event()
    with host.request(a_request("d", range(7), Work.DECODE), landed.wait) as events:
        await events.next()
    assert (await blocks_of(host)).quarantined == 2
    assert host.settling == 1
    landed.set()
    await settled()
    assert host.settling == 0
    counts = await blocks_of(host)
    assert (counts.free, counts.quarantined) == (8, 0)


async def test_a_request_that_is_given_up_frees_its_blocks(open_host):
    host = open_host()
    with host.request(a_request("r", max_tokens=100)) as events:
        await events.next()
    assert (await blocks_of(host)).active == 0


class BrokenRunner(ContextRunner):
    def run(self, chunks, layers_done):
        raise FloatingPointError("the device is gone")


async def test_an_engine_that_fails_ends_every_request_and_takes_no_more(open_host):
    host = open_host(BrokenRunner(4))
    with host.request(a_request("a")) as a, host.request(a_request("b")) as b:
        for events in (a, b):
            with pytest.raises(EngineError, match="the device is gone"):
                await collect(events)
    assert isinstance(await host.failure, FloatingPointError)
    with pytest.raises(UnavailableError, match="the device is gone"), host.request(a_request("c")):
        pass


async def test_a_failure_reaches_requests_even_if_nobody_waits_for_it_any_more(open_host):
    host = open_host(BrokenRunner(4))
    host.failure.cancel()
    with host.request(a_request("a")) as events, pytest.raises(UnavailableError):
        await collect(events)


async def test_what_came_before_an_end_is_not_lost_with_it():
    stream = EventStream()
    events = [Admitted("r", (block,), 0) for block in range(3)]
    for event in events:
        stream.put(event)
    stream.put(UnavailableError("over"))
    assert await stream.next_batch() == events
    with pytest.raises(UnavailableError, match="over"):
        await stream.next_batch()


async def test_requests_can_be_ended_and_others_still_come(open_host):
    host = open_host()
    with host.request(a_request("d", work=Work.DECODE)) as events:
        await events.next()
        host.end_requests("drained")
        with pytest.raises(UnavailableError, match="drained"):
            await events.next()
    assert await generate(host, a_request("r")) == alone(a_request("r"), 128)


async def test_changes_wake_who_waits_for_them(open_host):
    host = open_host()
    waiting = asyncio.create_task(host.changed(timeout_s=PATIENCE_S * 10))
    await asyncio.sleep(0)
    with host.request(a_request("r")):
        await waiting


async def test_silence_ends_a_wait_too(open_host):
    await open_host().changed(timeout_s=0.001)


async def test_closing_ends_requests_and_what_never_settles(open_host):
    host = open_host()
    never = asyncio.Event()
    with host.request(a_request("r", work=Work.DECODE), never.wait):
        pass
    with host.request(a_request("s", work=Work.DECODE)) as events:
        await events.next()
        assert await host.close(timeout_s=0.01) or await host.close(PATIENCE_S)
        with pytest.raises(UnavailableError, match="shutting down"):
            await events.next()
    with pytest.raises(UnavailableError), host.request(a_request("late")):
        pass
    await settled()
    assert host.settling == 0
