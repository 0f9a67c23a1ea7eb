"""OpenAI's client against a whole cluster of the real model: what gRPC says, HTTP says."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import openai
import pytest
import pytest_asyncio
from grpc import aio

from pdserve.cli.local_cluster import LocalCluster
from pdserve.rpc.v1 import router_pb2
from tests.integration.harness import assert_nothing_left, cluster, generate, greedy

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

TOKENS = 24
QUESTION = "Name three primary colors."
TEXT = "The capital of France is"
MESSAGES = [{"role": "user", "content": QUESTION}]


@dataclass
class Served:
    cluster: LocalCluster
    channel: aio.Channel
    client: openai.AsyncOpenAI


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with cluster(1, 1) as (started, channel):
        url = f"{started.http_url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            yield Served(started, channel, client)


async def over_grpc(channel: aio.Channel) -> tuple[str, str]:
    """The greedy answer to the question, and the greedy end of the text."""
    chat = router_pb2.Chat(messages=[router_pb2.ChatMessage(role="user", content=QUESTION)])
    answer = await generate(channel, router_pb2.GenerateRequest(chat=chat, sampling=greedy(TOKENS)))
    end = await generate(channel, router_pb2.GenerateRequest(prompt=TEXT, sampling=greedy(TOKENS)))
    return answer.text, end.text


async def test_http_and_grpc_say_the_same_and_leave_nothing(served: Served) -> None:
    client = served.client
    answer, end = await over_grpc(served.channel)
    (model,) = [each.id async for each in client.models.list()]
    whole = await client.chat.completions.create(
        model=model, messages=MESSAGES, temperature=0, max_completion_tokens=TOKENS, n=2
    )
    assert [choice.message.content for choice in whole.choices] == [answer] * 2
    stream = await client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        temperature=0,
        max_tokens=TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == answer
    assert chunks[-1].usage.completion_tokens * 2 == whole.usage.completion_tokens

    texts = await client.completions.create(
        model=model, prompt=[TEXT, TEXT], temperature=0, max_tokens=TOKENS, logprobs=2
    )
    assert [choice.text for choice in texts.choices] == [end] * 2
    logprobs = texts.choices[0].logprobs
    assert "".join(logprobs.tokens) == end
    assert all(logprob <= 0 for logprob in logprobs.token_logprobs)
    # Greedy: the token that was taken is the most likely one.
    for name, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert top[name] == logprob == max(top.values())

    with pytest.raises(openai.BadRequestError) as bad:
        await client.completions.create(model=model, prompt=TEXT, max_tokens=10**6)
    assert bad.value.param == "max_tokens"
    await assert_nothing_left(served.cluster)


async def test_clients_that_go_away_leave_nothing(served: Served) -> None:
    client = served.client
    for _ in range(5):
        stream = await client.completions.create(
            model="", prompt=TEXT, max_tokens=500, stream=True, extra_body={"ignore_eos": True}
        )
        async for _ in stream:
            break
        await stream.close()
    asking = asyncio.ensure_future(
        client.completions.create(
            model="", prompt=TEXT, max_tokens=500, extra_body={"ignore_eos": True}, n=3
        )
    )
    await asyncio.wait({asking}, timeout=0.5)
    asking.cancel()
    await asyncio.wait({asking})
    await assert_nothing_left(served.cluster)
