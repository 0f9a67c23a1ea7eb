"""An answer as it comes, for programs that block."""

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from pdserve.client.answer import Answer, Piece
from pdserve.client.exchange import Exchange, answer_of
from pdserve.rpc.v1 import router_pb2

if TYPE_CHECKING:
    Generate = grpc.UnaryStreamMultiCallable[router_pb2.GenerateRequest, router_pb2.GenerateEvent]


class Stream:
    """The pieces of one answer. The request is sent when the first is asked for.

    To leave the loop early, close it, or use it in a `with` statement: that ends the request, with
    everything that it started on the instances. Iterating raises the `PdserveError` that ended the
    request.
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
        """Ends the request; iterating ends too. Any thread may call it."""
        self._exchange.close()

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _pieces(generate: "Generate", exchange: Exchange) -> Iterator[Piece]:
    while not exchange.closed:
        timeout_s = exchange.next_timeout_s()
        call = generate(exchange.request, timeout=timeout_s, metadata=exchange.metadata)
        exchange.opened(call)
        try:
            for event in call:
                if piece := exchange.take(event):
                    yield piece
            exchange.check_complete()
            return
        except grpc.RpcError as error:
            delay_s = exchange.delay_after(error)
        finally:
            call.cancel()
        if delay_s is None:
            return
        exchange.pause(delay_s)
