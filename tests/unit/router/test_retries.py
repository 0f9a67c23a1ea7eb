"""Many failures at once, and the same one again and again, as clients of the router see them."""

import asyncio

import grpc
import pytest
from grpc import aio
from router_bench import Bench, bench
from router_fakes import ANSWER, FakeInstance, Script, hang, raising

from pdserve import errors


def dies(it: Bench, fake: FakeInstance):
    async def action() -> None:
        it.aside.run(fake.kill())
        await hang()

    return action


async def failure_of(it: Bench) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as raised:
        await it.generate()
    return raised.value


@pytest.mark.parametrize("step", ["queued", 12])
async def test_all_that_runs_on_an_instance_survives_it_whatever_the_budget(step) -> None:
    async with bench(decode=2, retry_share=0.0) as it:
        count, reached = 40, []

        async def stay() -> None:
            reached.append(1)
            await hang()

        it.decode[1].publish(draining=True)
        await it.until_state(it.decode[1], "draining")
        it.decode[0].scripts = [Script(before={step: stay}) for _ in range(count)]
        calls = [it.aside.run(it.generate()) for _ in range(count)]
        await it.until(lambda: len(reached) == count)
        it.decode[1].publish(draining=False)
        await it.until_state(it.decode[1], "up")
        await it.decode[0].kill()
        answers = await asyncio.gather(*calls)
        assert all(answer.text == ANSWER for answer in answers)
        assert all(len(answer.finished.attempts) == 2 for answer in answers)
        assert it.metric("retries_total", cause="lost") == count


async def test_a_request_that_kills_two_instances_gets_no_third() -> None:
    async with bench(decode=3) as it:
        for fake in it.decode:
            fake.scripts = [Script(before={step: dies(it, fake) for step in (2, 3)})]
        error = await failure_of(it)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "decode-0, then decode-1 failed while running this request" in error.details()
        assert it.decode[2].requests == []
        assert it.metric("retries_refused_total", why="poison") == 1


async def test_so_does_one_on_which_two_engines_fail() -> None:
    async with bench(prefill=3) as it:
        for fake in it.prefill:
            broken = errors.EngineError("the engine failed: the device is gone")
            fake.scripts = [Script(before={"first_token": raising(broken)})]
        error = await failure_of(it)
        assert "prefill-0, then prefill-1 failed while running this request" in error.details()
        assert it.prefill[2].requests == []


async def test_where_everything_fails_attempts_end_with_the_budget(monkeypatch) -> None:
    monkeypatch.setattr("services.router.retry_budget._RESERVE_PER_S", 0.0)
    async with bench(decode=2, retry_share=0.0, max_attempts=10) as it:
        broken = errors.UnavailableError("broken")
        for fake in it.decode:
            fake.scripts = [Script(before={"queued": raising(broken)}) for _ in range(100)]
        details = [(await failure_of(it)).details() for _ in range(3)]
        assert "the retry budget is used up" in details[-1]
        # Each has its first and its free attempt; the reserve of ten is for all together.
        assert sum(len(fake.requests) for fake in it.decode) == 3 * 2 + 10
        assert it.metric("retries_refused_total", why="budget") >= 1


async def test_whoever_comes_back_to_where_it_failed_waits_a_little(monkeypatch) -> None:
    pauses = []
    monkeypatch.setattr(
        "services.router.orchestrator._backoff_s", lambda attempts: pauses.append(attempts) or 0.0
    )
    async with bench(decode=2) as it:
        broken = errors.UnavailableError("broken")
        it.decode[0].scripts = [Script(before={"queued": raising(broken)})]
        assert (await it.generate()).text == ANSWER
        assert pauses == []  # there was another
        it.decode[1].publish(draining=True)
        await it.until_state(it.decode[1], "draining")
        it.decode[0].scripts = [Script(before={"queued": raising(broken)}) for _ in range(2)]
        assert (await it.generate()).text == ANSWER
        assert pauses == [1, 2]


async def test_every_call_to_an_instance_has_a_deadline() -> None:
    async with bench(decode=2) as it:
        it.decode[0].scripts = [Script(before={"kv_ready": raising(errors.TransferError("cut"))})]
        await it.generate(timeout=15)
        await it.until(lambda: it.prefill[0].released)
        deadlines = [each for fake in it.instances for each in fake.deadlines]
        assert len(deadlines) >= 4
        assert all(each is not None and 0 < each <= 15 for each in deadlines)


def test_backoff_is_anything_up_to_a_bound_that_doubles() -> None:
    from services.router.orchestrator import _backoff_s

    for attempts, most in ((1, 0.1), (2, 0.2), (3, 0.4), (20, 1.0)):
        drawn = [_backoff_s(attempts) for _ in range(200)]
        assert 0 <= min(drawn) < most / 4
        assert most / 2 < max(drawn) <= most
