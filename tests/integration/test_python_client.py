"""The Python client, blocking and on asyncio, and explanations, on a cluster of the real model."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pdserve.cli.local_cluster import LocalCluster
from pdserve.client import Answer, AsyncClient, Client, Explanation, Message, Slo
from pdserve.errors import InvalidRequestError, UnknownRequestError
from tests.integration.harness import assert_nothing_left, cluster

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

TOKENS = 12
QUESTION = [Message("user", "Name three primary colors.")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[LocalCluster]:
    async with cluster(1, 1) as (started, _):
        yield started


def ask_blocking(address: str) -> tuple[Answer, Answer, Explanation]:
    """A whole answer, the same again as a stream, and why the last went as it did."""
    with Client(address) as client:
        whole = client.generate(QUESTION, max_tokens=TOKENS, temperature=0, logprobs=1)
        with client.stream(QUESTION, max_tokens=TOKENS, temperature=0) as stream:
            text = "".join(piece.text for piece in stream)
        assert text == stream.answer.text
        return whole, stream.answer, client.explain(stream.answer.request_id)


async def test_both_clients_say_the_same_and_explain_it(served: LocalCluster) -> None:
    address = served.router_address
    whole, streamed, explained = await asyncio.to_thread(ask_blocking, address)
    async with AsyncClient(address) as client:
        slo = Slo(ttft_ms=1e6, tpot_ms=1e6)
        answer = await client.generate(QUESTION, max_tokens=TOKENS, temperature=0, slo=slo)
        assert (await client.models())[0].ready
        assert await client.ready()
        its_own = await client.explain(answer.request_id)
        with pytest.raises(UnknownRequestError):
            await client.explain("never-sent")
        with pytest.raises(InvalidRequestError) as bad:
            await client.generate("x", max_tokens=10**6)
        assert bad.value.field == "max_tokens"
    assert answer.text == streamed.text == whole.text
    assert answer.token_ids == streamed.token_ids == whole.token_ids
    assert len(whole.logprobs) == len(whole.tokens)
    # Greedy: the token that was taken is the most likely one.
    assert all(token.logprob == token.top_logprobs[0].logprob for token in whole.tokens)
    assert (explained.state, explained.ledger) == ("finished", streamed.ledger)
    assert its_own.slo.ttft_ms == 1e6
    for told, given in ((explained, streamed), (its_own, answer)):
        (attempt,) = told.attempts
        assert (attempt.prefill, attempt.decode) == ("prefill-0", "decode-0")
        chosen = attempt.candidates[0]
        assert (chosen.prefill, chosen.decode) == ("prefill-0", "decode-0")
        assert told.ledger is not None
        assert told.ledger.total_s <= given.total_s
    await assert_nothing_left(served)


async def test_clients_that_leave_a_stream_leave_nothing(served: LocalCluster) -> None:
    async with AsyncClient(served.router_address) as client:
        for _ in range(3):
            async with client.stream(QUESTION, max_tokens=500, ignore_eos=True) as stream:
                async for _ in stream:
                    break
    await assert_nothing_left(served)
