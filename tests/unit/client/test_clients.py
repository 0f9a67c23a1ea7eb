"""What both clients do, against a router that follows a script."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest
from flaky_router import PIECES, Blocking, OnALoop, listening

from pdserve.client import (
    Answer,
    AsyncClient,
    Client,
    FinishReason,
    Message,
    NoRouterError,
    Priority,
    Slo,
    Token,
    Usage,
)
from pdserve.errors import (
    DeadlineError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)

both = pytest.mark.parametrize("client", [Blocking(), OnALoop()], ids=["blocking", "asyncio"])
FULL = OverloadedError("the queue is full", field="max_queued", limit="4", retry_after_s=0.01)
NOBODY = "127.0.0.1:1"


def check(answer: Answer) -> None:
    assert (answer.request_id, answer.text, answer.stop) == ("its-id", "Hello", "!")
    assert answer.finish_reason is FinishReason.STOP
    assert answer.tokens == (Token(7, 0, None, ()), Token(8, 1, -0.5, ()))
    assert (answer.token_ids, answer.logprobs) == ((7, 8), (-0.5,))
    assert answer.usage == Usage(prompt_tokens=3, output_tokens=2, cached_tokens=1)
    assert (answer.ledger.ttft_s, answer.ledger.total_s) == (0.25, 0.75)
    (attempt,) = answer.attempts
    assert (attempt.prefill, attempt.decode) == ("p", "d")
    assert attempt.candidates[0].verdict == "best"
    assert 0 < answer.ttft_s <= answer.total_s


@both
def test_an_answer_has_all_that_the_router_said(client) -> None:
    with listening() as router:
        check(client.ask(router.address, "generate", "x"))
        pieces, answer = client.read(router.address)
        check(answer)
        assert [piece.text for piece in pieces] == ["Hel", "", "lo"]


@both
def test_a_request_says_what_was_asked_for(client) -> None:
    options = {
        "max_tokens": 8,
        "temperature": 0,
        "seed": 0,
        "logprobs": 2,
        "logit_bias": {5: -1.5},
        "stop": "!",
        "slo": Slo(ttft_ms=200, hard=True),
        "priority": Priority.HIGH,
        "model": "tiny",
        "request_id": "mine",
    }
    with listening() as router:
        client.ask(router.address, "generate", "Once", options=options, api_key="a-secret-key")
        client.ask(router.address, "generate", [Message("user", "Hi")])
        client.ask(router.address, "generate", [1, 2])
    text, chat, ids = router.requests
    assert (text.prompt, text.model, text.ref.request_id) == ("Once", "tiny", "mine")
    sampling = text.sampling
    assert (sampling.max_tokens, sampling.logprobs, dict(sampling.logit_bias)) == (8, 2, {5: -1.5})
    assert sampling.HasField("temperature")
    assert sampling.HasField("seed")
    assert not sampling.HasField("top_p")
    assert list(text.stop) == ["!"]
    assert (text.slo.ttft_ms, text.slo.hard, text.slo.HasField("tpot_ms")) == (200, True, False)
    assert text.priority == 3
    assert router.metadata[0]["authorization"] == "Bearer a-secret-key"
    assert "authorization" not in router.metadata[1]
    assert [(each.role, each.content) for each in chat.chat.messages] == [("user", "Hi")]
    assert list(ids.token_ids.ids) == [1, 2]


@both
@pytest.mark.parametrize(
    ("prompt", "options", "error"),
    [
        ("x", {"max_tokens": -1}, InvalidRequestError),
        ("x", {"seed": 2**64}, InvalidRequestError),
        ([-1], {}, InvalidRequestError),
        ("x", {"priority": "urgent"}, InvalidRequestError),
        ("x", {"max_token": 1}, TypeError),
        ("x", {"max_tokens": "1"}, TypeError),
        ([Message("user", "x"), 1], {}, TypeError),
        ("\ud800", {}, UnicodeError),
    ],
)
def test_what_cannot_be_sent_is_refused_before_any_call(client, prompt, options, error) -> None:
    with pytest.raises(error) as raised:
        client.ask(NOBODY, "generate", prompt, options=options)
    if error is InvalidRequestError:
        assert raised.value.field == next(iter(options), "token_ids")


@both
def test_the_routers_errors_come_with_all_that_they_say(client) -> None:
    with listening([*PIECES, FULL]) as router, pytest.raises(OverloadedError) as raised:
        client.ask(router.address, "generate", "x")
    error = raised.value
    assert (str(error), error.field, error.limit) == ("the queue is full", "max_queued", "4")
    assert error.retry_after_s == pytest.approx(0.01)


@both
@pytest.mark.parametrize("method", ["models", "cluster"])
def test_where_nobody_listens_is_an_error_of_its_own(client, method: str) -> None:
    with pytest.raises(NoRouterError, match=f"no router at {NOBODY}"):
        client.ask(NOBODY, method)


@both
def test_what_is_no_router_is_told(client) -> None:
    with listening() as router:  # it has no GetCluster and no health
        with pytest.raises(UnavailableError, match="not a pdserve router"):
            client.ask(router.address, "cluster")
        assert client.ask(router.address, "health") is False
        assert client.ask(router.address, "ready") is False
    assert client.ask(NOBODY, "health") is False


@both
def test_an_answer_without_an_end_is_no_answer(client) -> None:
    with (
        listening([*PIECES]) as router,
        pytest.raises(UnavailableError, match="without saying why"),
    ):
        client.ask(router.address, "generate", "x")


@both
def test_a_deadline_ends_the_request(client) -> None:
    with listening(["hang"]) as router:
        with pytest.raises(DeadlineError, match="did not complete its answer in time"):
            client.ask(router.address, "generate", "x", options={"timeout_s": 0.2})
        assert router.ended.acquire(timeout=20)


@both
def test_leaving_a_stream_ends_the_request(client) -> None:
    with listening([PIECES[0], "hang"]) as router:
        pieces, _ = client.read(router.address, most=1)
        assert [piece.text for piece in pieces] == ["Hel"]
        assert router.ended.acquire(timeout=20)


@both
def test_nothing_is_sent_again_unless_asked_for(client) -> None:
    with listening([FULL]) as router:
        with pytest.raises(OverloadedError):
            client.ask(router.address, "generate", "x")
        assert len(router.requests) == 1


@both
def test_a_request_is_sent_again_as_often_as_allowed(client) -> None:
    busy = UnavailableError("no decode instance is up")
    with listening([FULL], [busy]) as router:
        check(client.ask(router.address, "generate", "x", retries=2))
        assert len(router.requests) == 3
    with listening([FULL], [busy]) as router:
        with pytest.raises(UnavailableError, match="no decode instance"):
            client.ask(router.address, "generate", "x", retries=1)
        assert len(router.requests) == 2


@both
@pytest.mark.parametrize(
    "script",
    [
        [PIECES[0], FULL],  # some of the answer has come
        [InvalidRequestError("never")],  # it would be refused again
        [OverloadedError("full", retry_after_s=1000)],  # beyond the deadline
    ],
)
def test_what_cannot_be_sent_again_is_not(client, script) -> None:
    with listening(script) as router:
        with pytest.raises((OverloadedError, InvalidRequestError)):
            client.ask(router.address, "generate", "x", retries=5, timeout_s=20)
        assert len(router.requests) == 1


def test_an_answer_is_there_at_the_end_alone() -> None:
    with listening() as router, Client(router.address) as client:
        stream = client.stream("x")
        next(stream)
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.answer
        assert [piece.text for piece in stream] == ["", "lo"]
        assert stream.answer.text == "Hello"


def test_a_loop_that_breaks_off_ends_the_request() -> None:
    with listening([PIECES[0], "hang"]) as router, Client(router.address) as client:
        for _ in client.stream("x"):
            break
        gc.collect()
        assert router.ended.acquire(timeout=20)


async def test_a_loop_on_asyncio_that_breaks_off_ends_the_request() -> None:
    with listening([PIECES[0], "hang"]) as router:
        async with AsyncClient(router.address) as client:
            async for _ in client.stream("x"):
                break
            assert await asyncio.to_thread(router.ended.acquire, timeout=20)


def test_any_thread_may_close_a_stream() -> None:
    with listening([PIECES[0], "hang"]) as router, Client(router.address) as client:
        stream = client.stream("x")
        assert next(stream).text == "Hel"
        threading.Thread(target=stream.close).start()
        assert list(stream) == []
        assert router.ended.acquire(timeout=20)


def test_any_thread_may_end_the_wait_for_another_try(monkeypatch) -> None:
    refused = OverloadedError("full", retry_after_s=300)
    with listening([refused]) as router, Client(router.address, timeout_s=999, retries=1) as client:
        stream = client.stream("x")
        delay_after = stream._exchange.delay_after

        def then_close(error):
            delay_s = delay_after(error)
            threading.Thread(target=stream.close).start()
            return delay_s

        monkeypatch.setattr(stream._exchange, "delay_after", then_close)
        assert list(stream) == []
        assert len(router.requests) == 1


async def test_the_wait_for_another_try_ends_with_the_stream_on_asyncio(monkeypatch) -> None:
    refused = OverloadedError("full", retry_after_s=300)
    with listening([refused]) as router:
        async with AsyncClient(router.address, timeout_s=999, retries=1) as client:
            stream = client.stream("x")
            delay_after = stream._exchange.delay_after

            def then_close(error):
                delay_s = delay_after(error)
                asyncio.get_running_loop().call_soon(stream.close)
                return delay_s

            monkeypatch.setattr(stream._exchange, "delay_after", then_close)
            assert [piece async for piece in stream] == []
            assert len(router.requests) == 1


async def test_cancelling_the_task_ends_the_request() -> None:
    with listening(["hang"]) as router:
        async with AsyncClient(router.address) as client:
            task = asyncio.create_task(client.generate("x"))
            while not router.requests:  # noqa: ASYNC110 - it is served in another thread
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(router.ended.acquire, timeout=20)


async def test_closing_a_client_fails_its_calls_and_cancels_no_task() -> None:
    with listening(["hang"]) as router:
        client = AsyncClient(router.address)
        task = asyncio.create_task(client.generate("x"))
        while not router.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(UnavailableError, match="was closed"):
            await task


def test_closing_a_blocking_client_fails_its_calls() -> None:
    with listening([PIECES[0], "hang"]) as router:
        client = Client(router.address)
        stream = client.stream("x")
        next(stream)
        threading.Thread(target=client.close).start()
        with pytest.raises(UnavailableError, match="was closed"):
            next(stream)


@both
@pytest.mark.parametrize(("method", "words"), [("models", ()), ("generate", ("x",)), ("ready", ())])
def test_a_closed_client_says_that_it_is(client, method: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UnavailableError, match="was closed"):
        client.ask_closed(NOBODY, method, *words)


def test_the_client_imports_neither_services_nor_what_is_heavy() -> None:
    heavy = ("torch", "numpy", "services", "rich", "tokenizers", "aiohttp")
    code = f"import pdserve.client, sys; print(sorted(set(sys.modules) & {set(heavy)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
