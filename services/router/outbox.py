"""What waits to be written to one client."""

import asyncio
from collections import deque

from pdserve.rpc.v1 import router_pb2


class Outbox:
    """A bounded queue of events with the idiom of asyncio's streams: `put`, then `drain`.

    `put` never waits, so that taking a token and handing it over cannot be torn apart by a
    cancellation; a producer that drains after each `put` exceeds `limit` by one event at most.
    There is one consumer. Where it is slower than the tokens come, it gets several in one event.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: deque[router_pb2.GenerateEvent] = deque()
        self._closed = False
        self._arrival: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: router_pb2.GenerateEvent) -> None:
        """Appends an event."""
        self._events.append(event)
        if len(self._events) >= self._limit:
            self._room.clear()
        self._wake()

    @property
    def full(self) -> bool:
        """Whether the client has yet to read before more is taken."""
        return not self._room.is_set()

    async def drain(self) -> None:
        """Returns when fewer than `limit` events wait."""
        await self._room.wait()

    def close(self) -> None:
        """No event follows."""
        self._closed = True
        self._wake()

    async def get(self) -> router_pb2.GenerateEvent | None:
        """The next event; None when it is closed and empty. All deltas that wait are one."""
        while not self._events:
            if self._closed:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        event = self._events.popleft()
        while self._events and _goes_on(event, self._events[0]):
            more = self._events.popleft().delta
            event.delta.text += more.text
            event.delta.tokens.extend(more.tokens)
        if len(self._events) < self._limit:
            self._room.set()
        return event

    def _wake(self) -> None:
        if self._arrival and not self._arrival.done():
            self._arrival.set_result(None)


def _goes_on(event: router_pb2.GenerateEvent, following: router_pb2.GenerateEvent) -> bool:
    """Whether both are text of the same attempt."""
    return (
        event.HasField("delta")
        and following.HasField("delta")
        and event.ref.attempt == following.ref.attempt
    )
