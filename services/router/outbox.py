"""What waits to be written to one client."""

import asyncio

from pdserve.rpc.v1 import router_pb2


class Outbox:
    """A bounded queue of events with the idiom of asyncio's streams: `put`, then `drain`.

    `put` never waits, so that taking a token and handing it over cannot be torn apart by a
    cancellation; a producer that drains after each `put` exceeds `limit` by one event at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: asyncio.Queue[router_pb2.GenerateEvent | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: router_pb2.GenerateEvent) -> None:
        """Appends an event."""
        self._events.put_nowait(event)
        if self._events.qsize() >= self._limit:
            self._room.clear()

    @property
    def full(self) -> bool:
        """Whether the client has yet to read before more is taken."""
        return not self._room.is_set()

    async def drain(self) -> None:
        """Returns when fewer than `limit` events wait."""
        await self._room.wait()

    def close(self) -> None:
        """No event follows."""
        self._events.put_nowait(None)

    async def get(self) -> router_pb2.GenerateEvent | None:
        """The next event; None when it is closed and empty."""
        event = await self._events.get()
        if self._events.qsize() < self._limit:
            self._room.set()
        return event
