"""OpenAI's own Python client reads streams of several choices, logprobs, usage and refusals."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from http_client import HELLO
from router_bench import Bench, bench
from router_fakes import ANSWER, OUTPUT, Script, hang


@asynccontextmanager
async def client_bench(**options) -> AsyncIterator[tuple[Bench, openai.AsyncOpenAI]]:
    async with (
        bench(**options) as it,
        openai.AsyncOpenAI(
            base_url=f"{it.url}/v1", api_key="none", max_retries=0, timeout=20
        ) as client,
    ):
        yield it, client


async def test_choices_come_side_by_side_with_logprobs_and_one_usage() -> None:
    async with client_bench() as (_, client):
        stream = await client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            n=2,
            logprobs=True,
            top_logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
        )
        texts, bytes_of, reasons, usages = defaultdict(str), defaultdict(list), {}, []
        async for chunk in stream:
            usages.append(chunk.usage)
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
                for token in choice.logprobs.content if choice.logprobs else ():
                    bytes_of[choice.index] += token.bytes
                    assert token.logprob == token.top_logprobs[0].logprob
        assert texts == {0: ANSWER, 1: ANSWER}
        assert reasons == {0: "stop", 1: "stop"}
        assert {bytes(each).removesuffix(b"<end>") for each in bytes_of.values()} == {
            ANSWER.encode()
        }
        # Of all chunks only the last has it, and it counts the prompt once.
        *none, usage = usages
        assert not any(none)
        assert usage.completion_tokens == 2 * len(OUTPUT)
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_completions_in_chunks_have_logprobs_that_spell_the_text() -> None:
    async with client_bench() as (_, client):
        stream = await client.completions.create(
            model="tiny", prompt="a", max_tokens=9, logprobs=1, stream=True
        )
        tokens, offsets, text = [], [], ""
        async for chunk in stream:
            (choice,) = chunk.choices
            text += choice.text
            if choice.logprobs:
                tokens += choice.logprobs.tokens
                offsets += choice.logprobs.text_offset
        assert "".join(tokens) == text == "The quick"
        assert offsets == list(range(9))


async def test_a_stream_is_refused_before_it_begins() -> None:
    """The client raises where it asks, not where it reads."""
    async with client_bench(max_running=1, max_queued=0) as (it, client):
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        it.aside.run(client.completions.create(model="tiny", prompt="x"))
        await it.until(lambda: it.prefill[0].running == 1)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        assert refused.value.code == "overloaded"
        # What its retries wait by.
        assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_a_refusal_is_not_retried() -> None:
    async with client_bench() as (it, client):
        with pytest.raises(openai.BadRequestError):
            await client.with_options(max_retries=5).completions.create(
                model="tiny", prompt="x", max_tokens=10**6
            )
        assert it.metric("requests_total", outcome="invalid_argument") == 1
