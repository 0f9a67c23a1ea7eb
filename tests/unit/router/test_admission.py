"""What requests find at the router's door: SLOs, classes, limits of their key, and their turn."""

import asyncio
import logging
from pathlib import Path

import grpc
import pytest
from grpc import aio
from http_client import COMPLETIONS, http_bench
from router_bench import Bench, bench
from router_fakes import ANSWER, Script, hang

from pdserve.api_keys import bearer
from pdserve.errors import PdserveError
from pdserve.rpc.errors import from_rpc_error
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.rpc.v1.types_pb2 import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NORMAL

ALICE, BOB = "alices-secret-key", "bobs-secret-key"


def write_keys(folder: Path, alice: str = "", bob: str = "") -> str:
    path = folder / "keys"
    path.write_text(f"alice: {ALICE} {alice}\nbob: {BOB} {bob}\n")
    return str(path)


async def generate(it: Bench, prompt: str = "hello", key: str = "", **fields) -> str:
    request = router_pb2.GenerateRequest(prompt=prompt, **fields)
    call = it.stub.Generate(request, timeout=20, metadata=bearer(key))
    try:
        return "".join([event.delta.text async for event in call])
    except aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()


async def refusal(it: Bench, *args, **fields) -> PdserveError:
    with pytest.raises(PdserveError) as raised:
        await generate(it, *args, **fields)
    return raised.value


async def explain(it: Bench, request_id: str, key: str = "") -> router_pb2.ExplainResponse:
    request = router_pb2.ExplainRequest(request_id=request_id)
    return await it.stub.Explain(request, timeout=5, metadata=bearer(key))


async def occupy(it: Bench, key: str = "") -> asyncio.Event:
    """A request takes a slot until the event is set."""
    leave = asyncio.Event()
    it.prefill[0].scripts = [Script(before={"queued": leave.wait})]
    it.aside.run(generate(it, "first", key))
    await it.until(lambda: it.prefill[0].running == 1)
    return leave


def prompts(it: Bench) -> list[str]:
    """In the order in which prefill has got them."""
    return [bytes(request.prompt_token_ids).decode() for request in it.prefill[0].requests]


async def queued(it: Bench, count: int, key: str = "") -> None:
    """Waits until so many requests wait."""
    request = router_pb2.GetClusterRequest()
    async with asyncio.timeout(20):
        while True:
            cluster = await it.stub.GetCluster(request, metadata=bearer(key))
            if cluster.queued_requests == count:
                return


async def test_the_routers_slos_hold_where_a_request_has_none() -> None:
    async with bench(slo_ttft_ms=8000, slo_hard=True) as it:
        own = types_pb2.Slo(tpot_ms=9000, hard=False)
        await generate(it, ref=types_pb2.RequestRef(request_id="none"))
        await generate(it, ref=types_pb2.RequestRef(request_id="own"), slo=own)
        assert (await explain(it, "none")).slo == types_pb2.Slo(ttft_ms=8000, hard=True)
        expected = types_pb2.Slo(ttft_ms=8000, tpot_ms=9000, hard=False)
        assert (await explain(it, "own")).slo == expected


async def test_without_slos_anywhere_there_are_none() -> None:
    async with bench() as it:
        await generate(it, ref=types_pb2.RequestRef(request_id="r"))
        explanation = await explain(it, "r")
        assert explanation.slo == types_pb2.Slo(hard=False)
        assert explanation.priority == PRIORITY_NORMAL


async def test_a_key_lowers_the_class_that_a_request_asks_for(tmp_path: Path) -> None:
    keys = write_keys(tmp_path, alice="priority=normal", bob="priority=low")
    async with bench(api_keys=keys) as it:
        applied = {}
        for key in (ALICE, BOB):
            for asked in (0, PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_HIGH):
                ref = types_pb2.RequestRef(request_id=f"r{asked}")
                await generate(it, key=key, ref=ref, priority=asked, sampling={"max_tokens": 1})
                applied[key, asked] = (await explain(it, f"r{asked}", key)).priority
        assert [applied[ALICE, asked] for asked in range(4)] == [2, 1, 2, 2]
        assert [applied[BOB, asked] for asked in range(4)] == [1, 1, 1, 1]


async def test_an_id_is_taken_by_the_requests_of_its_own_key_alone(tmp_path: Path) -> None:
    async with bench(api_keys=write_keys(tmp_path)) as it:
        ref = types_pb2.RequestRef(request_id="1")
        leave = asyncio.Event()
        it.prefill[0].scripts = [Script(before={"queued": leave.wait})]
        runs = it.aside.run(generate(it, "first", ALICE, ref=ref))
        await it.until(lambda: it.prefill[0].running == 1)
        error = await refusal(it, key=ALICE, ref=ref)
        assert (error.reason, error.field) == ("invalid_argument", "ref.request_id")
        assert await generate(it, "second", BOB, ref=ref) == ANSWER
        leave.set()
        assert await runs == ANSWER


async def test_a_class_that_there_is_not_is_refused() -> None:
    async with bench() as it:
        error = await refusal(it, priority=7)
        assert (error.reason, error.field, error.limit) == (
            "invalid_argument",
            "priority",
            "LOW|NORMAL|HIGH",
        )


@pytest.mark.parametrize(
    ("header", "value", "limit"),
    [
        ("x-pdserve-priority", "urgent", "low, normal, high"),
        ("x-pdserve-slo-hard", "yes", "0 or 1"),
        ("x-pdserve-ttft-ms", "nan", "a number"),
    ],
)
async def test_headers_are_checked(header: str, value: str, limit: str) -> None:
    async with http_bench() as (it, client):
        reply = await client.post(COMPLETIONS, {"prompt": "x"}, **{header: value})
        assert (reply.status, reply.error["param"]) == (400, header)
        assert limit in reply.error["message"]
        assert it.prefill[0].requests == []


async def test_headers_are_what_applies() -> None:
    async with http_bench(slo_hard=True) as (it, client):
        reply = await client.post(
            COMPLETIONS,
            {"prompt": "x"},
            x_request_id="r",
            x_pdserve_priority="high",
            x_pdserve_slo_hard="0",
            x_pdserve_ttft_ms="9000",
        )
        assert reply.status == 200
        explanation = await explain(it, "r")
        assert explanation.slo == types_pb2.Slo(ttft_ms=9000, hard=False)
        assert explanation.priority == PRIORITY_HIGH


async def test_requests_wait_for_their_turn_the_urgent_ones_first() -> None:
    async with bench(max_running=1) as it:
        leave = await occupy(it)
        waiting = []
        for count, (prompt, priority) in enumerate(
            [("low", PRIORITY_LOW), ("normal", PRIORITY_NORMAL), ("high", PRIORITY_HIGH)], 1
        ):
            waiting.append(it.aside.run(generate(it, prompt, priority=priority)))
            await queued(it, count)
            assert it.metric("queued_requests", priority=prompt) == 1
        assert it.metric("running_requests") == 1
        leave.set()
        assert await asyncio.gather(*waiting) == [ANSWER] * 3
        assert prompts(it) == ["first", "high", "normal", "low"]
        for priority in ("low", "high"):
            assert it.metric("admission_seconds_count", priority=priority) == 1
            assert it.metric("queued_requests", priority=priority) == 0


async def test_a_client_that_floods_delays_no_other(tmp_path: Path) -> None:
    async with bench(max_running=1, api_keys=write_keys(tmp_path)) as it:
        leave = await occupy(it, ALICE)
        waiting = []
        for count in range(5):
            waiting.append(it.aside.run(generate(it, f"alice{count}", ALICE)))
            await queued(it, count + 1, ALICE)
        waiting.append(it.aside.run(generate(it, "bob", BOB)))
        await queued(it, 6, BOB)
        leave.set()
        await asyncio.gather(*waiting)
        assert prompts(it).index("bob") == 1


async def test_who_gives_up_waiting_leaves_nothing() -> None:
    async with bench(max_running=1) as it:
        leave = await occupy(it)
        waits = it.aside.run(generate(it, "second"))
        await queued(it, 1)
        waits.cancel()
        await queued(it, 0)
        leave.set()
        await it.until_quiet()
        assert prompts(it) == ["first"]
        assert await generate(it, "third") == ANSWER


async def test_a_router_that_drains_refuses_who_waits_and_finishes_who_runs() -> None:
    async with bench(max_running=1) as it:
        leave = await occupy(it)
        waits = it.aside.run(refusal(it, "second"))
        await queued(it, 1)
        it.stop.set()
        error = await waits
        assert error.reason == "unavailable"
        assert "draining" in str(error)
        assert it.router.requests.running == 1
        leave.set()
        await it.served


async def test_a_hard_slo_bounds_the_wait_and_a_soft_one_does_not() -> None:
    async with http_bench(max_running=1) as (it, client):
        leave = await occupy(it)
        fields = {"prompt": "x", "max_tokens": 1}
        soft = it.aside.run(client.post(COMPLETIONS, fields, x_pdserve_ttft_ms="1"))
        await queued(it, 1)
        hard = {"x-pdserve-ttft-ms": "1", "x-pdserve-slo-hard": "1"}
        reply = await client.post(COMPLETIONS, fields, **hard)
        assert (reply.status, reply.error["param"]) == (429, "x-pdserve-ttft-ms")
        assert int(reply.headers["Retry-After"]) >= 1
        assert it.metric("refused_total", limit="slo") == 1
        leave.set()
        assert (await soft).status == 200


async def test_choices_and_prompts_take_turns_where_they_cannot_run_at_once() -> None:
    async with http_bench(max_running=2, max_queued=6) as (_, client):
        for stream in (False, True):
            reply = await client.complete(["a", "b"], n=4, stream=stream)
            assert reply.status == 200
            texts = [""] * 8
            for each in reply.chunks if stream else [reply.body]:
                for choice in each["choices"]:
                    texts[choice["index"]] += choice["text"]
            assert texts == [ANSWER] * 8


async def test_a_key_has_its_rate_of_requests_which_every_answer_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = write_keys(tmp_path, alice="requests_per_minute=2")
    async with http_bench(api_keys=keys) as (it, client):
        alice, bob = ({"authorization": f"Bearer {key}"} for key in (ALICE, BOB))
        fields = {"prompt": "x", "max_tokens": 1}
        # The choices of a request count as one.
        for left, more in (("1", {"n": 3}), ("0", {"stream": True})):
            reply = await client.post(COMPLETIONS, fields | more, **alice)
            assert reply.status == 200
            assert reply.headers["x-ratelimit-limit-requests"] == "2"
            assert reply.headers["x-ratelimit-remaining-requests"] == left
            assert reply.headers["x-ratelimit-reset-requests"].endswith("s")
            assert "x-ratelimit-limit-tokens" not in reply.headers
        before = len(it.prefill[0].requests)
        with caplog.at_level(logging.INFO):
            reply = await client.post(COMPLETIONS, fields, **alice)
        assert (reply.status, reply.error["param"]) == (429, "requests_per_minute")
        assert 25 <= int(reply.headers["Retry-After"]) <= 30
        assert 25_000 < int(reply.headers["Retry-After-Ms"]) <= 30_000
        assert reply.headers["x-ratelimit-remaining-requests"] == "0"
        error = await refusal(it, key=ALICE)
        assert (error.reason, error.field) == ("overloaded", "requests_per_minute")
        assert 25 < error.retry_after_s <= 30
        assert it.metric("refused_total", limit="requests_per_minute") == 2
        assert len(it.prefill[0].requests) == before
        (record,) = (each for each in caplog.records if each.msg == "request refused")
        assert (record.client, record.limit) == ("alice", "requests_per_minute")
        assert ALICE not in caplog.text
        reply = await client.post(COMPLETIONS, fields, **bob)
        assert reply.status == 200
        assert not any(name.lower().startswith("x-ratelimit") for name in reply.headers)


async def test_tokens_are_reserved_while_a_request_runs_and_counted_when_it_has_ended(
    tmp_path: Path,
) -> None:
    # So few that nothing refills while the test runs.
    keys = write_keys(tmp_path, alice="tokens_per_minute=100")
    async with http_bench(api_keys=keys) as (it, client):
        alice = {"authorization": f"Bearer {ALICE}"}
        it.decode[0].scripts = [Script(before={2: hang})]
        fields = {"prompt": "12345", "max_tokens": 60}
        async with client.session.post(
            it.url + COMPLETIONS, json=fields | {"stream": True}, headers=alice
        ) as streamed:
            assert int(streamed.headers["x-ratelimit-remaining-tokens"]) < 100 - 60
            reply = await client.post(COMPLETIONS, fields, **alice)
            assert (reply.status, reply.error["param"]) == (429, "tokens_per_minute")
        await it.until_quiet()
        fields = {"prompt": "12345", "max_tokens": 50}
        reply = await client.post(COMPLETIONS, fields, **alice)
        assert reply.status == 200
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) >= 100 - 7 - 55


async def test_what_no_instance_has_had_costs_no_tokens(tmp_path: Path) -> None:
    keys = write_keys(tmp_path, alice="tokens_per_minute=100")
    async with http_bench(api_keys=keys, placement_timeout_s=0) as (it, client):
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        fields = {"prompt": "12345", "max_tokens": 50}
        reply = await client.post(COMPLETIONS, fields, authorization=f"Bearer {ALICE}")
        assert reply.status == 503
        assert reply.headers["x-ratelimit-remaining-tokens"] == "100"


async def test_a_key_has_so_many_requests_at_once(tmp_path: Path) -> None:
    keys = write_keys(tmp_path, alice="concurrent=2")
    async with http_bench(api_keys=keys) as (it, client):
        alice = {"authorization": f"Bearer {ALICE}"}
        leave = await occupy(it, ALICE)
        fields = {"prompt": "x", "max_tokens": 1}
        for more, status, param in (({"n": 3}, 400, "n"), ({"n": 2}, 429, "concurrent")):
            reply = await client.post(COMPLETIONS, fields | more, **alice)
            assert (reply.status, reply.error["param"]) == (status, param)
        assert (await client.post(COMPLETIONS, fields, **alice)).status == 200
        leave.set()
        await it.until_quiet()
        assert (await client.post(COMPLETIONS, fields | {"n": 2}, **alice)).status == 200


async def test_overload_has_a_status_of_its_own_over_grpc() -> None:
    async with bench(max_running=1, max_queued=1) as it:
        leave = await occupy(it)
        waits = it.aside.run(generate(it, "second"))
        await queued(it, 1)
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate("third")
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert it.metric("refused_total", limit="max_queued") == 1
        leave.set()
        assert await waits == ANSWER
