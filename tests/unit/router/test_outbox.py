"""The queue between the instances' streams and the client's."""

import asyncio

from pdserve.rpc.v1 import router_pb2, types_pb2
from services.router.outbox import Outbox


def event(text: str, attempt: int = 1) -> router_pb2.GenerateEvent:
    ref = types_pb2.RequestRef(attempt=attempt)
    tokens = [types_pb2.Token(id=ord(character)) for character in text]
    return router_pb2.GenerateEvent(ref=ref, delta=router_pb2.Delta(text=text, tokens=tokens))


async def test_a_producer_waits_while_the_client_is_behind() -> None:
    outbox = Outbox(limit=2)
    outbox.put(event("a"))
    await outbox.drain()
    outbox.put(event("b"))
    waiting = asyncio.ensure_future(outbox.drain())
    done, _ = await asyncio.wait({waiting}, timeout=0)
    assert not done
    assert (await outbox.get()).delta.text == "ab"
    await asyncio.wait_for(waiting, 5)


async def test_a_producer_that_is_cancelled_while_it_waits_has_lost_nothing() -> None:
    outbox = Outbox(limit=1)

    async def produce() -> None:
        outbox.put(event("a"))
        await outbox.drain()
        outbox.put(event("b"))

    producer = asyncio.ensure_future(produce())
    await asyncio.wait({producer}, timeout=0)
    producer.cancel()
    await asyncio.wait({producer})
    outbox.close()
    assert (await outbox.get()).delta.text == "a"
    assert await outbox.get() is None


async def test_what_was_put_before_the_end_still_comes() -> None:
    outbox = Outbox(limit=2)
    outbox.put(event("a"))
    outbox.close()
    assert (await outbox.get()).delta.text == "a"
    assert await outbox.get() is None


async def test_a_client_that_is_behind_gets_all_tokens_that_wait_at_once() -> None:
    outbox = Outbox(limit=9)
    for text in ("a", "b", "cd"):
        outbox.put(event(text))
    outbox.put(event("e", attempt=2))
    outbox.put(router_pb2.GenerateEvent(finished=router_pb2.Finished(output_tokens=5)))
    outbox.close()
    first = await outbox.get()
    assert (first.delta.text, first.ref.attempt) == ("abcd", 1)
    assert [chr(token.id) for token in first.delta.tokens] == list("abcd")
    assert (await outbox.get()).delta.text == "e"
    assert (await outbox.get()).finished.output_tokens == 5
    assert await outbox.get() is None
