"""An answer as it comes, for asyncio."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from pdserve.client.answer import Answer, Piece
from pdserve.client.exchange import Exchange, answer_of
from pdserve.client.failures import call_was_cut
from pdserve.rpc.v1 import router_pb2

if TYPE_CHECKING:
    Generate = aio.UnaryStreamMultiCallable[router_pb2.GenerateRequest, router_pb2.GenerateEvent]


class AsyncStream:
    """The pieces of one answer. The request is sent when the first is asked for.

    To leave the loop early, close it, or use it in an `async with` statement: that ends the
    request, with everything that it started on the instances; so does cancelling the task that
    reads it.
    Iterating raises the `PdserveError` that ended the request.
    """

    def __init__(self, generate: "Generate", exchange: Exchange) -> None:
        self._exchange = exchange
        # Not a method: a stream that nobody holds any more must go at once, and its call with it.
        self._pieces = _pieces(generate, exchange)

    @property
    def answer(self) -> Answer:
        """All of it; only at the end. Raises `RuntimeError` before."""
        return answer_of(self._exchange)

    def close(self) -> None:
        """Ends the request; iterating ends too."""
        self._exchange.close()

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> Piece:
        return await anext(self._pieces)

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


async def _pieces(generate: "Generate", exchange: Exchange) -> AsyncIterator[Piece]:
    while not exchange.closed:
        timeout_s = exchange.next_timeout_s()
        call = generate(exchange.request, timeout=timeout_s, metadata=exchange.metadata)
        exchange.opened(call)
        try:
            async for event in call:
                if piece := exchange.take(event):
                    yield piece
            exchange.check_complete()
            return
        except grpc.RpcError as error:
            delay_s = exchange.delay_after(error)
        except asyncio.CancelledError:
            if not call_was_cut():
                raise
            exchange.check_closed()
            return
        finally:
            call.cancel()
        if delay_s is None:
            return
        await _pause(exchange, delay_s)


async def _pause(exchange: Exchange, delay_s: float) -> None:
    """Waits for so long, or until the exchange is closed."""
    delay = asyncio.create_task(asyncio.sleep(delay_s))
    exchange.opened(delay)
    try:
        await asyncio.wait({delay})
    finally:
        delay.cancel()
