"""A stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Each event is one `data` line of JSON, which never holds a line break.
"""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from services.router.metrics import ClientGoneError

# Proxies that buffer would turn a stream into one lump.
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
# An empty send buffer takes so much without asking for a pause: asyncio's limit is four times that.
_AT_ONCE_BYTES = 16 << 10


class EventStream:
    """Writes events to one client; the response begins with the first of them.

    A client that takes nothing for `write_timeout_s` counts as gone. Several tasks may send.
    Methods raise `ClientGoneError`.
    """

    def __init__(
        self, request: web.Request, headers: Mapping[str, str], write_timeout_s: float
    ) -> None:
        self._request = request
        self.response = web.StreamResponse(headers={**_HEADERS, **headers})
        self._write_timeout_s = write_timeout_s
        # One at a time: aiohttp lets all that wait for room share a future, which the
        # cancellation of one would cancel for all.
        self._turn = asyncio.Lock()

    @property
    def begun(self) -> bool:
        """Whether the status has been sent, so that an error can only be an event."""
        return self.response.prepared

    async def send(self, *documents: str) -> None:
        """Sends an event for each JSON document, all at once."""
        await self._write("".join([f"data: {each}\n\n" for each in documents]))

    async def done(self) -> None:
        """Says that the answer is complete."""
        await self._write("data: [DONE]\n\n")

    async def _write(self, text: str) -> None:
        data = text.encode()
        try:
            if self._takes_at_once(data):
                await self.response.write(data)
                return
            async with asyncio.timeout(self._write_timeout_s), self._turn:
                if not self.begun:
                    await self.response.prepare(self._request)
                await self.response.write(data)
        except (TimeoutError, ConnectionError) as error:
            raise ClientGoneError("the client is gone, or has stopped to read") from error

    def _takes_at_once(self, data: bytes) -> bool:
        """Whether a write cannot wait: then it needs neither its turn nor a timeout."""
        transport = self._request.transport
        return (
            self.begun
            and not self._turn.locked()
            and transport is not None
            and transport.get_write_buffer_size() == 0
            and len(data) <= _AT_ONCE_BYTES
        )
