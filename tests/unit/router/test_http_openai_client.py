"""OpenAI's own Python client, as people use it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import openai
import pytest
from http_client import HELLO
from router_bench import Bench, bench
from router_fakes import ANSWER, OUTPUT, Script, hang, raising

from pdserve import errors

Result = TypeVar("Result")


@asynccontextmanager
async def client_bench(**options) -> AsyncIterator[tuple[Bench, openai.AsyncOpenAI]]:
    async with bench(**options) as it:
        url = f"{it.url}/v1"
        async with openai.AsyncOpenAI(
            base_url=url, api_key="none", max_retries=0, timeout=20
        ) as client:
            yield it, client


async def blocking(it: Bench, use: Callable[[openai.OpenAI], Result]) -> Result:
    """What the client that blocks does, beside the router's event loop."""

    def run() -> Result:
        with openai.OpenAI(
            base_url=f"{it.url}/v1", api_key="none", max_retries=0, timeout=20
        ) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_models() -> None:
    async with client_bench() as (_, client):
        assert [model.id async for model in client.models.list()] == ["tiny"]
        assert (await client.models.retrieve("path/to/tiny")).id == "tiny"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("huge")


async def test_a_conversation() -> None:
    async with client_bench() as (_, client):
        answer = await client.chat.completions.create(
            model="tiny", messages=HELLO, n=2, logprobs=True, top_logprobs=1, seed=3
        )
        assert [choice.message.content for choice in answer.choices] == [ANSWER] * 2
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "T"
        assert answer.usage.completion_tokens == 2 * len(OUTPUT)
        assert answer.usage.prompt_tokens_details.cached_tokens == 3


async def test_a_conversation_in_chunks() -> None:
    async with client_bench() as (_, client):
        stream = await client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.completion_tokens == len(OUTPUT)


async def test_the_streaming_helper() -> None:
    async with client_bench() as (_, client):
        async with client.chat.completions.stream(model="tiny", messages=HELLO) as stream:
            answer = await stream.get_final_completion()
        assert answer.choices[0].message.content == ANSWER


async def test_completions_with_extensions() -> None:
    async with client_bench() as (it, client):
        answer = await client.completions.create(
            model="tiny",
            prompt=["a", "b"],
            max_tokens=9,
            logprobs=2,
            extra_body={"top_k": 5, "ignore_eos": True, "min_tokens": 2},
            extra_headers={"x-pdserve-explain": "1", "x-pdserve-ttft-ms": "100"},
        )
        assert [choice.text for choice in answer.choices] == ["The quick"] * 2
        assert answer.choices[0].logprobs.tokens == list("The quick")
        assert len(answer.model_extra["pdserve"]["choices"]) == 2
        assert it.prefill[0].requests[0].sampling.top_k == 5
        stream = await client.completions.create(
            model="tiny", prompt="a", max_tokens=9, stream=True
        )
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "The quick"


async def test_the_client_that_blocks() -> None:
    async with bench() as it:

        def use(client: openai.OpenAI) -> tuple[str, str]:
            whole = client.chat.completions.create(model="tiny", messages=HELLO)
            chunks = client.completions.create(
                model="tiny", prompt="hi", max_tokens=100, stream=True
            )
            return whole.choices[0].message.content, "".join(c.choices[0].text for c in chunks)

        assert await blocking(it, use) == (ANSWER, ANSWER)


async def test_bad_requests_are_its_own_exceptions() -> None:
    async with client_bench() as (it, client):
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="tiny", messages=HELLO, temperature=-1)
        assert (bad.value.param, bad.value.code) == ("temperature", "invalid_value")
        assert bad.value.request_id
        tool = {"type": "function", "function": {"name": "f"}}
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(
                model="tiny", messages=HELLO, tools=[tool], stream=True
            )
        assert bad.value.param == "tools"
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="huge", prompt="x")
        with pytest.raises(openai.BadRequestError):
            await blocking(it, lambda it: it.completions.create(model="tiny", prompt=""))


async def test_overload_is_retried_by_itself() -> None:
    async with client_bench(max_running=1, max_queued=0) as (it, client):
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        first = it.aside.run(client.completions.create(model="tiny", prompt="x"))
        await it.until(lambda: it.prefill[0].running == 1)
        with pytest.raises(openai.RateLimitError):
            await client.completions.create(model="tiny", prompt="x")
        patient = client.with_options(max_retries=5)
        second = it.aside.run(patient.completions.create(model="tiny", prompt="x", max_tokens=3))
        await it.until(lambda: it.metric("requests_total", outcome="overloaded") >= 2)
        first.cancel()
        assert (await second).choices[0].text == "The"


async def test_a_failure_in_mid_stream_is_raised() -> None:
    async with client_bench(max_attempts=1) as (it, client):
        it.decode[0].scripts = [Script(before={9: raising(errors.UnavailableError("broken"))})]
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="broken") as raised:
            async for _ in stream:
                pass
        assert raised.value.code == "unavailable"


async def test_a_stream_that_is_closed_ends_the_request() -> None:
    async with client_bench() as (it, client):
        it.decode[0].scripts = [Script(before={9: hang})]
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        async for chunk in stream:
            assert json.loads(chunk.model_dump_json())
            break
        await stream.close()
        await it.until_quiet()
        assert it.metric("requests_total", outcome="cancelled") == 1
