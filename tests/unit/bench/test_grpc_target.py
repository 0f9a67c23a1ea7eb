"""Both targets against pdserve's own router, over fake instances."""

import asyncio

import pytest
from http_client import http_bench
from loads import workload
from router_bench import Bench, bench
from router_fakes import OUTPUT, Script, hang, raising

from pdserve.bench.grpc_target import GrpcOptions, GrpcTarget
from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.open_loop import Bounds, OpenLoop, Run
from pdserve.bench.prompts import IdPrompts, TextPrompts
from pdserve.bench.target import IdPrompt, RequestError, Target, TokenRange
from pdserve.bench.timeline import Timeline
from pdserve.errors import OverloadedError, PdserveError, UnavailableError
from pdserve.rpc.v1 import types_pb2
from pdserve.workload.workload import Workload


async def run(target: Target, made: Workload, bounds: Bounds | None = None) -> Run:
    facts = await target.prepare()
    if isinstance(facts.prompts, TokenRange):
        prompts = IdPrompts(made, 0, facts.prompts)
    else:
        prompts = TextPrompts(made, 0, facts.prompts)
    return await OpenLoop(target, made, prompts, bounds or Bounds(20), asyncio.Event()).run()


def grpc_target(it: Bench, **options: object) -> GrpcTarget:
    return GrpcTarget(GrpcOptions(it.router.address, **options))


async def test_a_run_by_grpc_has_exact_lengths() -> None:
    made = workload([0.0, 0.01, 0.02], [30, 7, 19], [6, 1, 80])
    async with bench() as it:
        target = grpc_target(it)
        seen = await run(target, made)
        await target.close()
        assert sorted(len(each.prompt_token_ids) for each in it.prefill[0].requests) == [7, 19, 30]
    assert [record.outcome for record in seen.records] == ["ok"] * 3
    assert [record.output_tokens for record in seen.records] == [6, 1, 80]
    assert [record.counted_tokens for record in seen.records] == [30, 7, 19]
    assert [len(record.gaps_s) for record in seen.records] == [5, 0, 79]
    sampling = it.prefill[0].requests[0].sampling
    assert sampling.ignore_eos
    assert sampling.temperature == 0


async def test_turns_by_grpc_contain_the_tokens_of_the_answers() -> None:
    made = workload([0.0, 0.5], [10, 40], 6, conversation=[0, 0])
    async with bench() as it:
        target = grpc_target(it)
        seen = await run(target, made)
        await target.close()
        first, second = (list(each.prompt_token_ids) for each in it.prefill[0].requests)
    answer = [] if seen.records[1].answer_missed else OUTPUT[:6]
    assert second[: 10 + len(answer)] == [*first, *answer]


async def test_slos_go_with_the_requests() -> None:
    async with bench() as it:
        target = grpc_target(it, slo=types_pb2.Slo(ttft_ms=60_000))
        await run(target, workload([0.0]))
        await target.close()
        (asked,) = it.prefill[0].requests
        assert len(asked.prompt_token_ids) == 8


@pytest.mark.parametrize(
    ("error", "refusal", "reason"),
    [
        (OverloadedError("full"), "rejected", "RESOURCE_EXHAUSTED"),
        (UnavailableError("gone"), "failed", "UNAVAILABLE"),
    ],
)
async def test_errors_of_the_router_are_told_apart(
    error: PdserveError, refusal: str, reason: str
) -> None:
    async with bench(max_attempts=1) as it:
        it.prefill[0].scripts = [Script(before={"queued": raising(error)})] * 8
        it.decode[0].scripts = [Script(before={"queued": raising(error)})] * 8
        target = grpc_target(it)
        await target.prepare()
        with pytest.raises(RequestError, match=reason) as caught:
            await target.request(IdPrompt([65] * 8), 4)(Timeline())
        await target.close()
    assert caught.value.refusal == refusal


async def test_giving_up_cancels_the_call() -> None:
    async with bench() as it:
        it.prefill[0].scripts = [Script(before={"started": hang})]
        target = grpc_target(it)
        seen = await run(target, workload([0.0]), Bounds(timeout_s=0.3))
        await it.until_quiet()
        await target.close()
    assert [record.outcome for record in seen.records] == ["timeout"]


async def test_no_router_and_a_router_that_goes() -> None:
    async with bench() as it:
        target = grpc_target(it)
        await target.prepare()
        address = it.router.address
    with pytest.raises(RequestError) as caught:
        await target.request(IdPrompt([65] * 8), 4)(Timeline())
    assert caught.value.refusal == "failed"
    await target.close()
    with pytest.raises(UnavailableError, match=f"{address}: UNAVAILABLE: connection refused"):
        await GrpcTarget(GrpcOptions(address)).prepare()


async def test_our_http_api_takes_token_ids_and_fixed_lengths() -> None:
    made = workload([0.0, 0.01], [30, 7], [6, 80])
    async with http_bench() as (it, _):
        target = HttpTarget(HttpOptions(f"{it.url}/v1", tokens=TokenRange(32, 120)))
        seen = await run(target, made)
        await target.close()
    assert [record.outcome for record in seen.records] == ["ok", "ok"]
    assert [record.output_tokens for record in seen.records] == [6, 80]
    assert [record.counted_tokens for record in seen.records] == [30, 7]
    assert all(record.cached_tokens is not None for record in seen.records)


async def test_our_chat_is_about_as_long_as_asked() -> None:
    made = workload([0.0, 0.01], [120, 150], 6)
    async with http_bench() as (it, _):
        target = HttpTarget(HttpOptions(f"{it.url}/v1", api="chat"))
        seen = await run(target, made)
        await target.close()
    assert [record.outcome for record in seen.records] == ["ok", "ok"]
    # The tiny model has a token a byte; in a vocabulary with the words in it the lengths are exact.
    counted = [record.counted_tokens for record in seen.records]
    assert counted == pytest.approx([120, 150], rel=0.25)
