"""What decode says in a PullKv call."""

import asyncio
from collections.abc import AsyncIterator

from pdserve.rpc.v1 import prefill_pb2


class Outbox:
    """The requests of one call, as its transport asks for them.

    Holds the newest of each kind (an ack or keep-alive covers those before it), so it stays small
    however slow the other side reads.
    """

    def __init__(self, opening: prefill_pb2.PullKvRequest) -> None:
        self._ref = opening.ref
        self._pending = {"open": opening}
        self._ended = False
        self._changed = asyncio.Event()

    def say(self, request: prefill_pb2.PullKvRequest) -> None:
        """Queues `request`; its ref is filled in."""
        request.ref.CopyFrom(self._ref)
        self._pending[request.WhichOneof("request") or ""] = request
        self._changed.set()

    def end(self) -> None:
        """Nothing more will be said."""
        self._ended = True
        self._changed.set()

    async def messages(self) -> AsyncIterator[prefill_pb2.PullKvRequest]:
        """Yields what is said until the end."""
        while self._pending or not self._ended:
            if not self._pending:
                self._changed.clear()
                await self._changed.wait()
                continue
            yield self._pending.pop(next(iter(self._pending)))
