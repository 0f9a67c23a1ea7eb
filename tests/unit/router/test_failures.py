"""The failure contract, row by row, as a client of the router sees it."""

import grpc
import pytest
from grpc import aio
from router_bench import bench
from router_fakes import ANSWER, OUTPUT, Script, hang, raising

from pdserve import errors
from pdserve.rpc.v1 import prefill_pb2, types_pb2

UNAVAILABLE = errors.UnavailableError("broken")


def whole(answer) -> bool:
    return answer.text == ANSWER and answer.indices == list(range(len(OUTPUT)))


@pytest.mark.parametrize("step", ["queued", "started", "first_token"])
async def test_prefill_that_fails_before_the_first_token_is_not_noticed(step: str) -> None:
    async with bench(prefill=2) as it:
        it.prefill[0].scripts = [Script(before={step: raising(UNAVAILABLE)})]
        answer = await it.generate()
        assert whole(answer)
        first, second = answer.finished.attempts
        assert (first.prefill, second.prefill) == ("prefill-0", "prefill-1")
        assert "broken" in first.failure
        assert answer.finished.ledger.recovery_s == 0
        assert it.prefill[1].requests[0].ref.attempt == 2
        assert list(it.prefill[1].requests[0].output_token_ids) == []
        assert it.metric("retries_total", cause="unavailable") == 1


@pytest.mark.parametrize("step", ["queued", "started", "first_token"])
async def test_killed_prefill_is_replaced(step: str) -> None:
    async with bench(prefill=2) as it:

        async def die() -> None:
            it.aside.run(it.prefill[0].kill())
            await hang()

        it.prefill[0].scripts = [Script(before={step: die})]
        answer = await it.generate()
        assert whole(answer)
        assert len(answer.finished.attempts) == 2


async def test_a_transfer_that_fails_is_prefilled_elsewhere_with_the_first_token_kept() -> None:
    async with bench(prefill=2) as it:
        broken = errors.TransferError("digest mismatch")
        it.decode[0].scripts = [Script(before={"kv_ready": raising(broken)})]
        answer = await it.generate()
        assert whole(answer)
        assert [each.prefill for each in answer.finished.attempts] == ["prefill-0", "prefill-1"]
        # Whether the first token was out by then is a matter of timing; the stream is whole.
        sent = list(it.prefill[1].requests[0].output_token_ids)
        assert sent in ([], OUTPUT[:1])
        await it.until(lambda: it.prefill[0].released)
        assert it.prefill[0].released[0].transfer_id.startswith("prefill-0/")


async def test_kv_whose_lease_expired_is_computed_again() -> None:
    async with bench(prefill=2) as it:
        expired = prefill_pb2.PrefillFinished.OUTCOME_LEASE_EXPIRED

        async def until_decode_waits() -> None:
            await it.until(lambda: it.decode[0].running == 1)

        it.prefill[0].scripts = [Script(before={"finished": until_decode_waits}, outcome=expired)]
        it.decode[0].scripts = [Script(before={"kv_ready": hang})]
        answer = await it.generate()
        assert whole(answer)
        assert "LEASE_EXPIRED" in answer.finished.attempts[0].failure


async def test_prefill_that_dies_after_the_hand_off_harms_nobody() -> None:
    async with bench() as it:

        async def kill_prefill() -> None:
            await it.prefill[0].kill()
            await it.until_state(it.prefill[0], "down")

        it.decode[0].scripts = [Script(before={20: kill_prefill})]
        answer = await it.generate()
        assert whole(answer)
        assert len(answer.finished.attempts) == 1


@pytest.mark.parametrize("step", ["queued", "admitted", "kv_ready", 1, 20, "finished"])
async def test_decode_that_fails_is_replaced_and_the_stream_goes_on(step) -> None:
    async with bench(decode=2) as it:
        it.decode[0].scripts = [Script(before={step: raising(UNAVAILABLE)})]
        answer = await it.generate()
        assert whole(answer)
        if step == "finished":  # its end token tells that nothing is missing
            assert len(answer.finished.attempts) == 1
            return
        assert [each.decode for each in answer.finished.attempts] == ["decode-0", "decode-1"]
        again = it.prefill[0].requests[1]
        assert list(again.output_token_ids) == OUTPUT[: len(again.output_token_ids)]
        if step == 20:
            assert len(again.output_token_ids) == 20
            assert answer.finished.ledger.recovery_s > 0


async def test_max_tokens_count_over_all_attempts() -> None:
    async with bench(decode=2) as it:
        it.decode[0].scripts = [Script(before={4: raising(UNAVAILABLE)})]
        answer = await it.generate(sampling=types_pb2.Sampling(max_tokens=6))
        assert answer.indices == list(range(6))
        assert it.prefill[0].requests[1].sampling.max_tokens == 6


async def test_an_output_that_was_complete_is_not_generated_again() -> None:
    async with bench() as it:
        it.decode[0].scripts = [Script(before={"finished": raising(UNAVAILABLE)})]
        answer = await it.generate(sampling=types_pb2.Sampling(max_tokens=6))
        assert answer.indices == list(range(6))
        assert answer.finished.reason == types_pb2.FINISH_REASON_LENGTH
        assert len(it.prefill[0].requests) == 1


@pytest.mark.parametrize(
    ("mangle", "named"),
    [
        (lambda it: [*it[:3], it[2], *it[3:]], "token 3 came where 4"),
        (lambda it: [*it[:3], *it[4:]], "token 5 came where 4"),
        (lambda it: it[:-1], "finished after"),
    ],
    ids=["twice", "missing", "cut"],
)
async def test_a_token_twice_or_missing_fails_only_the_attempt(mangle, named: str) -> None:
    async with bench(decode=2) as it:
        it.decode[0].scripts = [Script(mangle=mangle)]
        answer = await it.generate()
        assert whole(answer)
        assert named in answer.finished.attempts[0].failure
        assert it.metric("retries_total", cause="protocol") == 1


async def test_the_only_instance_is_tried_again_once_it_is_back() -> None:
    async with bench() as it:

        async def restart() -> None:
            async def kill_and_start() -> None:
                await it.decode[0].kill()
                await it.decode[0].start()

            it.aside.run(kill_and_start())
            await hang()

        it.decode[0].scripts = [Script(before={10: restart})]
        answer = await it.generate()
        assert whole(answer)
        assert [each.decode for each in answer.finished.attempts] == ["decode-0"] * 2


async def test_without_any_prefill_decode_does_both() -> None:
    async with bench() as it:
        await it.prefill[0].kill()
        await it.until_state(it.prefill[0], "down")
        answer = await it.generate()
        assert whole(answer)
        assert answer.finished.attempts[0].rung == "local"
        assert "prefill-0 is down" in answer.finished.attempts[0].reason


async def test_a_full_prefill_is_avoided_and_a_full_fleet_refuses() -> None:
    full = errors.OverloadedError("queue is full")
    async with bench(prefill=2) as it:
        it.prefill[0].scripts = [Script(before={"queued": raising(full)})]
        assert whole(await it.generate())
        for fake in it.prefill:
            fake.scripts = [Script(before={"queued": raising(full)})]
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert it.metric("attempts_total", rung="reject") == 1
        assert it.metric("requests_total", outcome="overloaded") == 1


async def test_a_full_decode_is_replaced() -> None:
    async with bench(decode=2) as it:
        full = errors.OverloadedError("queue is full")
        it.decode[0].scripts = [Script(before={"queued": raising(full)})]
        answer = await it.generate()
        assert whole(answer)
        assert [each.decode for each in answer.finished.attempts] == ["decode-0", "decode-1"]


async def test_attempts_are_bounded() -> None:
    async with bench(max_attempts=3) as it:
        it.decode[0].scripts = [Script(before={5: raising(UNAVAILABLE)}) for _ in range(9)]
        for script in it.decode[0].scripts:
            script.before["admitted"] = raising(UNAVAILABLE)
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "gave up after 3 attempts" in raised.value.details()
        assert "decode-0: broken" in raised.value.details()
        assert len(it.decode[0].requests) == 3


async def test_what_an_instance_finds_invalid_is_not_tried_again() -> None:
    async with bench(prefill=2) as it:
        invalid = errors.InvalidRequestError("top_k is odd", field="top_k", limit="even")
        it.prefill[0].scripts = [Script(before={"queued": raising(invalid)})]
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert raised.value.details() == "top_k is odd"
        assert it.prefill[1].requests == []


async def test_no_decode_at_all_is_said_with_its_reason() -> None:
    async with bench(placement_timeout_s=0.2) as it:
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "no decode instance can take it: decode-0 is down" in raised.value.details()


async def test_a_request_waits_for_an_instance_to_come_up() -> None:
    async with bench(placement_timeout_s=20) as it:
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        answer = it.aside.run(it.generate())
        await it.until(lambda: it.router.requests.running == 1)
        await it.decode[0].start()
        assert whole(await answer)


async def test_the_deadline_ends_a_request_that_hangs() -> None:
    async with bench(request_timeout_s=0.5) as it:
        it.decode[0].scripts = [Script(before={5: hang})]
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await it.until_quiet()
        assert it.metric("requests_total", outcome="deadline_exceeded") == 1
