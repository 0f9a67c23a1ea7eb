"""What the router tells of requests afterwards, and to whom: over gRPC and over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from http_client import http_bench
from router_bench import Bench, bench
from router_fakes import ANSWER, Script, hang, raising

from pdserve.client import AsyncClient, Client, Explanation, Ledger, Priority, Slo
from pdserve.errors import InvalidRequestError, UnavailableError, UnknownRequestError

BEFORE = ("router_queue_s", "prefill_queue_s", "prefill_compute_s", "first_token_out_s")
AFTER = ("decode_admission_s", "transfer_wait_s", "transfer_s", "decode_steps_s", "recovery_s")
# A float of 32 bits keeps seven digits.
CLOSE = {"abs": 1e-5, "rel": 1e-5}


@asynccontextmanager
async def asked(**options) -> AsyncIterator[tuple[Bench, AsyncClient]]:
    async with bench(**options) as it, AsyncClient(it.router.address, timeout_s=20) as client:
        yield it, client


def check_sums(ledger: Ledger) -> None:
    before = sum(getattr(ledger, name) for name in BEFORE)
    assert before == pytest.approx(ledger.ttft_s, **CLOSE)
    after = sum(getattr(ledger, name) for name in AFTER)
    assert before + after == pytest.approx(ledger.total_s, **CLOSE)


async def test_what_has_finished_is_told_as_its_client_was_told() -> None:
    async with asked(name="r") as (_, client):
        answer = await client.generate(
            "hello", slo=Slo(ttft_ms=1e6, hard=True), priority=Priority.LOW
        )
        explained = await client.explain(answer.request_id)
        assert (explained.request_id, explained.state) == (answer.request_id, "finished")
        assert (explained.ledger, explained.attempts) == (answer.ledger, answer.attempts)
        assert (explained.usage, explained.failure) == (answer.usage, None)
        assert explained.slo == Slo(ttft_ms=1e6, hard=True)
        assert (explained.priority, explained.router) == (Priority.LOW, "r")
        assert explained.age_s >= answer.ledger.total_s
        assert explained.attempts[0].elapsed_s > 0


async def test_the_ledger_adds_up_within_what_the_client_saw() -> None:
    async with asked() as (it, client):
        for answer in (
            await client.generate("hello"),
            await client.generate("hello", max_tokens=1),
            await asyncio.to_thread(blocking_answer, it.router.address),
        ):
            check_sums(answer.ledger)
            # Both clocks count the same seconds, and the client's begins first and ends last.
            assert 0 < answer.ledger.ttft_s <= answer.ledger.total_s <= answer.total_s


def blocking_answer(address: str):
    with Client(address, timeout_s=20) as client:
        answer = client.generate("hello")
        assert client.ready()
        assert client.health()
        assert client.models()[0].ready
        assert {each.role for each in client.cluster().instances} == {"prefill", "decode"}
        assert client.explain(answer.request_id).ledger == answer.ledger
        return answer


async def test_what_runs_can_be_explained_too() -> None:
    async with asked() as (it, client):
        go_on = asyncio.Event()
        it.prefill[0].scripts = [Script({"first_token": go_on.wait})]
        running = it.aside.run(client.generate("hello", request_id="mine"))
        await it.until(lambda: it.prefill[0].requests)
        explained = await client.explain("mine")
        assert (explained.state, explained.ledger) == ("running", None)
        (attempt,) = explained.attempts
        assert (attempt.prefill, attempt.decode) == ("prefill-0", "decode-0")
        # An id that is in use stands for the request that has it.
        with pytest.raises(InvalidRequestError, match="runs now"):
            await client.generate("again", request_id="mine")
        assert (await client.explain("mine")).state == "running"
        go_on.set()
        answer = await running
        assert (await client.explain("mine")).ledger == answer.ledger


async def test_what_failed_tells_every_attempt_and_the_error() -> None:
    async with asked(prefill=2, max_attempts=2, retry_share=10) as (it, client):
        for fake in it.prefill:
            fake.scripts = [Script({"queued": raising(UnavailableError("on fire"))})]
        with pytest.raises(UnavailableError):
            await client.generate("hello", request_id="doomed")
        explained = await client.explain("doomed")
        assert explained.state == "failed"
        assert explained.failure is not None
        assert explained.failure.reason == "unavailable"
        assert "on fire" in explained.failure.text
        assert [each.number for each in explained.attempts] == [1, 2]
        assert all("on fire" in each.failure for each in explained.attempts)
        assert explained.usage.output_tokens == 0
        assert explained.ledger is not None
        check_sums(explained.ledger)


async def test_what_was_refused_tells_why() -> None:
    async with asked() as (_, client):
        with pytest.raises(InvalidRequestError):
            await client.generate("hello", request_id="bad", max_tokens=10**6)
        explained = await client.explain("bad")
        assert (explained.state, explained.attempts) == ("refused", ())
        assert explained.failure is not None
        assert explained.failure.field == "max_tokens"
        assert explained.ledger is not None
        assert explained.ledger.router_queue_s == explained.ledger.total_s > 0


async def test_what_was_cancelled_tells_how_far_it_came() -> None:
    async with asked() as (it, client):
        it.decode[0].scripts = [Script({5: hang})]
        seen = ""
        async with client.stream("hello", request_id="left") as stream:
            async for piece in stream:
                seen += piece.text
                if seen == ANSWER[:5]:
                    break
        await it.until_quiet()
        explained = await client.explain("left")
        assert (explained.state, explained.failure) == ("cancelled", None)
        assert explained.usage.output_tokens == 5
        assert explained.ledger is not None
        check_sums(explained.ledger)


async def test_the_last_requests_are_kept_and_no_more() -> None:
    async with asked(explain_requests=2) as (_, client):
        for name in ("a", "b", "c", "b"):
            await client.generate("hello", max_tokens=1, request_id=name)
        assert (await client.explain("b")).state == "finished"
        assert (await client.explain("c")).state == "finished"
        for name in ("a", "never", ""):
            with pytest.raises(UnknownRequestError, match="is not known here"):
                await client.explain(name)


async def test_http_tells_the_same() -> None:
    async with http_bench() as (it, http):
        reply = await http.complete(max_tokens=3)
        async with AsyncClient(it.router.address) as client:
            explained = await client.explain(reply.headers["x-request-id"])
        told = await http.get(f"/v1/pdserve/requests/{explained.request_id}")
        assert told.status == 200
        assert told.body["age_s"] >= explained.age_s
        assert told.body | {"age_s": 0} == as_json(replace(explained, age_s=0))
        missing = await http.get("/v1/pdserve/requests/none%2Fsuch")
        assert (missing.status, missing.error["code"]) == (404, "request_not_found")
        assert "'none/such'" in missing.error["message"]


def as_json(explained: Explanation) -> dict:
    document = asdict(explained)
    document["attempts"] = list(document["attempts"])
    document["weighed"] = list(document["weighed"])
    for attempt in document["attempts"]:
        attempt["candidates"] = list(attempt["candidates"])
    return document


async def test_only_the_key_that_sent_a_request_may_see_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: key-of-alice\nbob: key-of-bob-too\n")
    async with http_bench(api_keys=str(keys)) as (it, http):
        async with (
            AsyncClient(it.router.address, api_key="key-of-alice") as alice,
            AsyncClient(it.router.address, api_key="key-of-bob-too") as bob,
        ):
            await alice.generate("hello", max_tokens=1, request_id="hers")
            assert (await alice.explain("hers")).state == "finished"
            with pytest.raises(UnknownRequestError):
                await bob.explain("hers")
            # Nor can anybody take its place.
            await bob.generate("hello", max_tokens=2, request_id="hers")
            assert (await alice.explain("hers")).usage.output_tokens == 1
            assert (await bob.explain("hers")).usage.output_tokens == 2
        path = "/v1/pdserve/requests/hers"
        assert (await http.get(path)).status == 401
        told = await http.get(path, authorization="Bearer key-of-alice")
        assert told.body["usage"]["output_tokens"] == 1
