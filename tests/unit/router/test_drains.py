"""Instances that drain at any moment of a request: nothing is lost, nothing new goes there."""

import asyncio

import pytest
from router_bench import Bench, bench
from router_fakes import ANSWER, FakeInstance, Script, raising

from pdserve import errors

DRAINING = errors.UnavailableError("it is draining")


def drain(it: Bench, fake: FakeInstance):
    async def action() -> None:
        fake.publish(draining=True)
        await it.until_state(fake, "draining")

    return action


@pytest.mark.parametrize("step", ["queued", "started", "first_token", "finished"])
async def test_prefill_that_drains_finishes_what_waits_there(step: str) -> None:
    async with bench(prefill=2) as it:
        it.prefill[0].scripts = [Script(before={step: drain(it, it.prefill[0])})]
        first = await it.generate()
        second = await it.generate()
        assert first.text == second.text == ANSWER
        attempts = [*first.finished.attempts, *second.finished.attempts]
        assert [each.prefill for each in attempts] == ["prefill-0", "prefill-1"]


@pytest.mark.parametrize("step", ["queued", "started"])
async def test_decode_that_drains_before_it_was_bound_is_replaced(step: str) -> None:
    """It was chosen while the request waited at prefill, and takes nothing new any more."""
    async with bench(decode=2) as it:
        it.prefill[0].scripts = [Script(before={step: drain(it, it.decode[0])})]
        it.decode[0].scripts = [Script(before={"queued": raising(DRAINING)})]
        answer = await it.generate()
        assert answer.text == ANSWER
        assert [each.decode for each in answer.finished.attempts] == ["decode-0", "decode-1"]
        assert "draining" in answer.finished.attempts[0].failure


@pytest.mark.parametrize("step", ["admitted", "kv_ready", 1, 12, "finished"])
async def test_decode_that_drains_finishes_what_it_has(step) -> None:
    async with bench(decode=2) as it:
        it.decode[0].scripts = [Script(before={step: drain(it, it.decode[0])})]
        answer = await it.generate()
        assert answer.text == ANSWER
        assert len(answer.finished.attempts) == 1


async def test_a_drain_that_ends_before_its_requests_costs_none_of_them() -> None:
    """However many there are: the retry budget is for other things."""
    async with bench(decode=2, retry_share=0.0) as it:
        count, reached, over = 40, [], asyncio.Event()

        async def stay() -> None:
            reached.append(1)
            await over.wait()
            raise DRAINING

        it.decode[1].publish(draining=True)
        await it.until_state(it.decode[1], "draining")
        it.decode[0].scripts = [Script(before={12: stay}) for _ in range(count)]
        calls = [it.aside.run(it.generate()) for _ in range(count)]
        await it.until(lambda: len(reached) == count)
        it.decode[1].publish(draining=False)
        await it.until_state(it.decode[1], "up")
        over.set()
        answers = await asyncio.gather(*calls)
        assert all(answer.text == ANSWER for answer in answers)
        assert it.metric("retries_refused_total", why="budget") == 0


async def test_when_everything_of_a_phase_drains_the_other_rung_is_taken() -> None:
    async with bench() as it:
        it.prefill[0].publish(draining=True)
        await it.until_state(it.prefill[0], "draining")
        answer = await it.generate()
        assert answer.text == ANSWER
        assert answer.finished.attempts[0].rung == "local"
