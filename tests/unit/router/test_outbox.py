"""The queue between the instances' streams and the client's."""

import asyncio

from pdserve.rpc.v1 import router_pb2
from services.router.outbox import Outbox


def event(text: str) -> router_pb2.GenerateEvent:
    return router_pb2.GenerateEvent(delta=router_pb2.Delta(text=text))


async def test_a_producer_waits_while_the_client_is_behind() -> None:
    outbox = Outbox(limit=2)
    outbox.put(event("a"))
    await outbox.drain()
    outbox.put(event("b"))
    waiting = asyncio.ensure_future(outbox.drain())
    done, _ = await asyncio.wait({waiting}, timeout=0)
    assert not done
    assert (await outbox.get()).delta.text == "a"
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
