"""Requests go out when they are due; what becomes of each is recorded."""

import asyncio
import math
from collections.abc import Callable

import pytest
from aiohttp import web
from loads import workload
from openai_server import OpenAiServer, hang, openai_server, refusing, stream, text_chunk, words

from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.open_loop import Bounds, OpenLoop, Run
from pdserve.bench.prompts import IdPrompts, TextPrompts
from pdserve.bench.record import Record
from pdserve.bench.target import TextScale, TokenRange
from pdserve.workload.workload import Workload

RANGE = TokenRange(100, 900)


async def run(
    url: str,
    made: Workload,
    bounds: Bounds | None = None,
    stop: asyncio.Event | None = None,
    text: bool = False,
    seen: Callable[[Record], None] = lambda _: None,
) -> Run:
    target = HttpTarget(HttpOptions(url, model="m", text=text))
    prompts = TextPrompts(made, 0, TextScale()) if text else IdPrompts(made, 0, RANGE)
    stop = stop or asyncio.Event()
    try:
        return await OpenLoop(target, made, prompts, bounds or Bounds(20), stop, seen).run()
    finally:
        await target.close()


def outcomes(run: Run) -> list[str]:
    return [record.outcome for record in run.records]


async def test_all_requests_are_sent_though_none_is_answered() -> None:
    made = workload([number / 1000 for number in range(100)], [5 + n % 7 for n in range(100)])
    stop = asyncio.Event()
    async with openai_server(hang) as server:
        task = asyncio.create_task(run(server.url, made, Bounds(60, after_stop_s=0), stop))
        await server.until(requests=100)
        stop.set()
        seen = await task
    assert outcomes(seen) == ["interrupted"] * 100
    assert sorted(len(asked["prompt"]) for asked in server.requests) == sorted(
        made.prompt_tokens.tolist()
    )
    assert seen.peak_in_flight == 100
    assert [record.due_s for record in seen.records] == pytest.approx(made.arrival_s.tolist())
    # None goes out before it is due, and all in their order.
    assert all(record.lag_s >= 0 for record in seen.records)
    sent = [record.sent_s for record in seen.records]
    assert sent == sorted(sent)


async def test_answers_are_recorded() -> None:
    made = workload([0.0, 0.001, 0.002], [9, 5, 7], [3, 1, 2])
    async with openai_server(words) as server:
        seen = await run(server.url, made)
    assert outcomes(seen) == ["ok"] * 3
    assert [record.index for record in seen.records] == [0, 1, 2]
    assert [record.output_tokens for record in seen.records] == [3, 1, 2]
    assert [record.counted_tokens for record in seen.records] == [9, 5, 7]
    assert [len(record.gaps_s) for record in seen.records] == [2, 0, 1]
    first = seen.records[0]
    assert 0 < first.ttft_s <= first.e2e_s
    assert first.e2e_s == pytest.approx(first.ttft_s + sum(first.gaps_s))
    assert math.isnan(seen.records[1].tpot_s)


async def test_what_is_due_beyond_the_bound_is_not_sent_and_counted() -> None:
    made = workload([number / 1000 for number in range(10)])
    stop = asyncio.Event()
    noted: list[Record] = []

    def note(record: Record) -> None:
        noted.append(record)
        if len(noted) == 6:
            stop.set()

    async with openai_server(hang) as server:
        bounds = Bounds(60, in_flight=4, after_stop_s=0)
        seen = await run(server.url, made, bounds, stop, seen=note)
    assert outcomes(seen)[:4] == ["interrupted"] * 4
    assert set(outcomes(seen)[4:]) == {"limited"}
    assert seen.peak_in_flight == 4
    assert seen.records[4].reason == "4 requests in flight"


async def test_a_deadline_ends_a_request_and_its_connection() -> None:
    async def half(_: OpenAiServer, request: web.Request, asked: dict) -> web.StreamResponse:
        response = await stream(request, [text_chunk(" a")], done=False)
        await hang()
        return response

    async with openai_server(half) as server:
        seen = await run(server.url, workload([0.0, 0.0]), Bounds(timeout_s=0.2))
    assert outcomes(seen) == ["timeout"] * 2
    assert seen.records[0].reason == "after 0.2 s"
    assert seen.records[0].ttft_s > 0
    assert math.isnan(seen.records[0].e2e_s)


async def test_rejections_and_failures() -> None:
    async with openai_server(refusing(429, {})) as server:
        assert outcomes(await run(server.url, workload([0.0, 0.0]))) == ["rejected"] * 2
    seen = await run(server.url, workload([0.0, 0.0]))
    assert outcomes(seen) == ["failed"] * 2
    assert seen.records[0].reason == "connection refused"


async def test_a_run_that_is_stopped_sends_nothing_more_and_lets_what_runs_end() -> None:
    release, stop = asyncio.Event(), asyncio.Event()

    async def patient(server: OpenAiServer, request: web.Request, asked: dict):
        await release.wait()
        return await words(server, request, asked)

    made = workload([0.0, 0.0, 3600.0])
    async with openai_server(patient) as server:
        task = asyncio.create_task(run(server.url, made, Bounds(60, after_stop_s=20), stop))
        await server.until(requests=2)
        stop.set()
        release.set()
        seen = await task
    assert outcomes(seen) == ["ok"] * 2


async def test_turns_contain_the_answers_before_them() -> None:
    made = workload([0.0, 0.3, 0.6], [10, 30, 50], 5, conversation=[0, 0, 0])
    async with openai_server(words) as server:
        seen = await run(server.url, made, text=True)
    prompts = [asked["prompt"] for asked in server.requests]
    for before, after, record in zip(prompts, prompts[1:], seen.records[1:], strict=False):
        # On a machine that stood still the answer may have come too late, which is recorded.
        answer = "" if record.answer_missed else " a0 a1 a2 a3 a4"
        assert after.startswith(f"{before}{answer} ")
    assert [len(prompt.split()) for prompt in prompts] == [10, 30, 50]


async def test_chats_are_as_long_as_the_workload_says() -> None:
    made = workload([0.0, 0.3, 0.6], [20, 50, 80], 5, conversation=[0, 0, 0])
    async with openai_server(words) as server:
        target = HttpTarget(HttpOptions(server.url, api="chat"))
        facts = await target.prepare()
        assert isinstance(facts.prompts, TextScale)
        prompts = TextPrompts(made, 0, facts.prompts)
        seen = await OpenLoop(target, made, prompts, Bounds(20), asyncio.Event()).run()
        await target.close()
    assert [record.counted_tokens for record in seen.records] == [20, 50, 80]
    assert [each["role"] for each in server.requests[-1]["messages"]][-1] == "user"


async def test_a_turn_does_not_wait_for_the_answer_before_it() -> None:
    made = workload([0.0, 0.01], [10, 30], 5, conversation=[0, 0])
    stop = asyncio.Event()
    async with openai_server(hang) as server:
        bounds = Bounds(60, after_stop_s=0)
        task = asyncio.create_task(run(server.url, made, bounds, stop, text=True))
        await server.until(requests=2)
        stop.set()
        seen = await task
    first, second = sorted((asked["prompt"] for asked in server.requests), key=len)
    assert second.startswith(f"{first} ")
    assert [record.answer_missed for record in seen.records] == [False, True]
