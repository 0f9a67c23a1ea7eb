"""How long silence is borne, by the objectives of what runs on the silent."""

import asyncio
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_bench import bench
from router_fakes import ANSWER, Script, hang

from pdserve.rpc.v1 import types_pb2
from services.router import guard
from services.router.patience import NO_SLO, Patience, longest_step_s

PATIENCE = Patience(floor_s=1.0, silence_timeout_s=3.0, step_timeout_s=60.0)
seconds = st.floats(0, 1e6) | st.just(math.inf)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "expected"),
    [
        (*NO_SLO, 3.0),
        (4.0, math.inf, 2.0),  # half is left for another instance
        (100.0, math.inf, 3.0),
        (0.2, math.inf, 1.0),
        (math.inf, 0.05, 1.6),  # 32 tokens
        (math.inf, 0.001, 1.0),
        (4.0, 0.05, 1.6),
    ],
)
def test_silence_is_borne_by_the_strictest_objective(ttft_s, tpot_s, expected) -> None:
    assert PATIENCE.silence_s(ttft_s, tpot_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tpot_s", "expected_s", "bound"),
    [
        (math.inf, 0.01, 60.0),  # nobody is in a hurry
        (0.05, None, 60.0),  # nobody knows what is slow here
        (0.05, 0.01, 1.6),
        (0.05, 0.5, 5.0),  # ten times what is usual
        (0.01, 0.01, 1.0),
        (0.05, 100.0, 60.0),
    ],
)
def test_a_step_may_take_what_objectives_and_habit_allow(tpot_s, expected_s, bound) -> None:
    assert PATIENCE.step_s(math.inf, tpot_s, expected_s) == pytest.approx(bound)


@given(
    floor=st.floats(0.05, 600),
    silence=st.floats(0.05, 600),
    step=st.floats(0.1, 3600),
    ttft=seconds,
    tpot=seconds,
    stricter=st.floats(0, 1),
    expected=st.none() | st.floats(0, 1e6),
)
def test_bounds_hold_whatever_the_objectives(
    floor, silence, step, ttft, tpot, stricter, expected
) -> None:
    patience = Patience(floor, silence, step)
    assert min(floor, silence) <= patience.silence_s(ttft, tpot) <= silence
    assert patience.shortest_step_s <= patience.step_s(ttft, tpot, expected) <= step
    # Four reports fit in the shortest silence: one that is late is none.
    assert patience.interval_s * 4 <= patience.silence_s(ttft, tpot)
    if not math.isinf(ttft):
        assert patience.silence_s(ttft * stricter, tpot) <= patience.silence_s(ttft, tpot)


def report(role: "types_pb2.Role.ValueType", **fields) -> types_pb2.LoadReport:
    info = types_pb2.InstanceInfo(
        role=role, max_batch_tokens=100, max_batch_seqs=10, max_model_len=1000
    )
    cost = types_pb2.LearnedCost(
        prefill_base_s=0.1,
        prefill_per_token_s=0.001,
        prefill_per_square_s=1e-6,
        decode_base_s=0.02,
        decode_per_context_token_s=1e-5,
        decode_per_sequence_s=0.001,
    )
    for name in ("prefill_steps", "decode_steps"):
        setattr(cost, name, fields.pop(name, 0))
    return types_pb2.LoadReport(info=info, cost=cost, **fields)


def test_the_longest_step_holds_all_that_may_be_in_one() -> None:
    prefill = 0.1 + 100 * 0.001 + (1000**2 - 900**2) * 1e-6
    decode = 0.02 + 500 * 1e-5 + 10 * 0.001
    p, d = types_pb2.ROLE_PREFILL, types_pb2.ROLE_DECODE
    it = report(p, prefill_steps=9, waiting_tokens=7)
    assert longest_step_s(it) == pytest.approx(prefill)
    it = report(d, decode_steps=9, context_tokens=500)
    assert longest_step_s(it) == pytest.approx(decode)
    it = report(d, decode_steps=9, prefill_steps=9, context_tokens=500, waiting_tokens=7)
    assert longest_step_s(it) == pytest.approx(prefill + decode)


def test_what_an_instance_has_not_learned_is_not_expected_of_it() -> None:
    p, d = types_pb2.ROLE_PREFILL, types_pb2.ROLE_DECODE
    assert longest_step_s(report(p)) is None
    assert longest_step_s(report(d, prefill_steps=9)) is None
    assert longest_step_s(report(d, decode_steps=9, waiting_tokens=7)) is None
    assert longest_step_s(types_pb2.LoadReport(info=types_pb2.InstanceInfo(role=p))) is None


async def test_who_is_in_a_hurry_does_not_wait_for_the_silence_timeout() -> None:
    """Nothing but the objective makes the router give up: the timeout is a minute."""
    async with bench(decode=2, silence_timeout_s=60.0, silence_floor_s=0.5) as it:

        async def freeze() -> None:
            it.decode[0].awake.clear()

        it.decode[0].scripts = [Script(before={12: freeze})]
        answer = await it.generate(slo=types_pb2.Slo(tpot_ms=10))
        assert answer.text == ANSWER
        assert "lost: no report" in answer.finished.attempts[0].failure
        it.decode[0].awake.set()


async def test_an_objective_that_comes_later_counts_as_well() -> None:
    async with bench(decode=2, silence_timeout_s=60.0, silence_floor_s=0.5) as it:
        reached = asyncio.Event()

        async def freeze() -> None:
            it.decode[0].awake.clear()
            reached.set()

        async def stay() -> None:
            reached.set()
            await hang()

        # The first has no objective, and the instance falls silent under the second.
        it.decode[0].scripts = [Script(before={2: stay}), Script(before={2: freeze})]
        first = it.aside.run(it.generate())
        await reached.wait()
        reached.clear()
        it.decode[1].publish(running_requests=9)
        await it.until(lambda: _load(it, "decode-1") == 9)
        second = it.aside.run(it.generate(slo=types_pb2.Slo(ttft_ms=100)))
        await reached.wait()
        assert (await first).text == (await second).text == ANSWER
        it.decode[0].awake.set()


async def test_a_stuck_step_is_found_by_the_objective_and_stays_so_until_it_ends() -> None:
    async with bench(decode=2) as it:
        decode = it.decode[0]
        decode.report.info.max_batch_seqs = 8
        decode.report.cost.decode_base_s = 0.02
        decode.report.cost.decode_steps = 100

        async def stick() -> None:
            decode.publish(step_age_s=5.0)
            await hang()

        decode.scripts = [Script(before={12: stick})]
        answer = await it.generate(slo=types_pb2.Slo(tpot_ms=20))
        assert answer.text == ANSWER
        assert "its step has not ended for 5.0 s" in answer.finished.attempts[0].failure
        # Nobody with an objective is there any more.
        decode.publish(step_age_s=5.1)
        watches = it.router.fleet.status
        await it.until(lambda: any(abs(each.report.step_age_s - 5.1) < 0.01 for each in watches()))
        assert it.state(decode) == "silent"
        decode.publish(step_age_s=0.1)
        await it.until_state(decode, "up")


async def test_a_slow_step_is_not_stuck_where_nobody_is_in_a_hurry() -> None:
    async with bench() as it:
        decode = it.decode[0]
        decode.report.cost.decode_steps = 100

        async def be_slow() -> None:
            decode.publish(step_age_s=5.0)
            await it.until(lambda: it.router.fleet.status()[1].report.step_age_s == 5.0)

        decode.scripts = [Script(before={12: be_slow})]
        answer = await it.generate()
        assert len(answer.finished.attempts) == 1


async def test_a_router_that_stood_still_takes_nobody_for_dead() -> None:
    async with bench(silence_timeout_s=0.4, silence_floor_s=0.4) as it:
        seen = set()

        async def stand_still() -> None:
            time.sleep(1.0)  # noqa: ASYNC251 - that is the point

        it.decode[0].scripts = [Script(before={5: stand_still})]
        answer = await it.generate()
        seen |= {it.state(fake) for fake in it.instances}
        assert answer.text == ANSWER
        assert len(answer.finished.attempts) == 1
        assert seen == {"up"}


async def test_what_an_instance_has_forgotten_is_tried_elsewhere(monkeypatch) -> None:
    monkeypatch.setattr(guard, "LOOK_EVERY_S", 0.3)
    async with bench(decode=2) as it:
        it.decode[0].scripts = [Script(before={12: hang})]  # its reports say: nothing to do
        answer = await it.generate()
        assert answer.text == ANSWER
        assert "has nothing to do and has not answered" in answer.finished.attempts[0].failure
        it.prefill[0].scripts = [Script(before={"first_token": hang})]
        again = await it.generate()
        assert again.text == ANSWER
        assert "prefill-0: lost: it has nothing" in again.finished.attempts[0].failure


async def test_what_takes_long_is_not_forgotten_while_the_instance_is_at_it(monkeypatch) -> None:
    monkeypatch.setattr(guard, "LOOK_EVERY_S", 0.2)
    async with bench() as it:
        it.decode[0].publish(running_requests=1)
        await it.until(lambda: _load(it, "decode-0") == 1)
        it.decode[0].scripts = [Script(before={12: lambda: asyncio.sleep(0.8)})]
        answer = await it.generate()
        assert len(answer.finished.attempts) == 1


def _load(it, name: str) -> int:
    view = it.router.fleet.view()
    return next(each.load.requests for each in view.decode if each.name == name)
