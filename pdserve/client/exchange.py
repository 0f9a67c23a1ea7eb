"""One request and its answer, from the first try to the last event."""

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

import grpc

from pdserve.client.answer import Answer, Piece, Token, Usage, finish_reason_of, tokens_of
from pdserve.client.connection import Connection, check_timeout
from pdserve.client.failures import cut_off, failure_of
from pdserve.client.placement import attempt_of, ledger_of
from pdserve.client.records import record_of
from pdserve.client.request import Options, Prompt, generate_request
from pdserve.errors import OverloadedError, UnavailableError
from pdserve.rpc.v1 import router_pb2

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0


class _Call(Protocol):
    def cancel(self) -> bool: ...


class Exchange:
    """What a stream is, apart from how it waits: shared by the blocking one and that of asyncio.

    `clock` is in seconds. Raises what `generate_request` raises.
    """

    def __init__(
        self,
        connection: Connection,
        prompt: Prompt,
        options: Options,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.request = generate_request(prompt, options)
        self.metadata = connection.metadata
        self.answer: Answer | None = None
        self._closed = threading.Event()
        self._connection = connection
        self._timeout_s = options.get("timeout_s", connection.timeout_s)
        check_timeout(self._timeout_s)
        self._clock = clock
        self._sent: float | None = None
        self._first: float | None = None
        self._tries = 0
        self._text: list[str] = []
        self._tokens: list[Token] = []
        self._call: _Call | None = None

    def next_timeout_s(self) -> float:
        """How long the next try may take; the first one starts the clock.

        Raises `UnavailableError` where the client has been closed.
        """
        self._connection.check_open()
        if self._sent is None:
            self._sent = self._clock()
        self._tries += 1
        return max(0.0, self._remaining_s())

    def opened(self, call: _Call) -> None:
        """`call` is the present try, or the wait for the next."""
        self._call = call
        if self.closed:  # by another thread, which did not know of the call
            call.cancel()

    @property
    def closed(self) -> bool:
        """Whether no further try may follow."""
        return self._closed.is_set()

    def pause(self, delay_s: float) -> None:
        """Blocks for so long, or until the exchange is closed."""
        self._closed.wait(delay_s)

    def close(self) -> None:
        """Ends the present try, and lets no other follow. Any thread may call it."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def take(self, event: router_pb2.GenerateEvent) -> Piece | None:
        """The piece that an event brings; None at the end of the answer."""
        if self._first is None:
            self._first = self._clock()
        if event.HasField("finished"):
            self.answer = self._complete(event.ref.request_id, event.finished)
            return None
        piece = Piece(event.delta.text, tokens_of(event.delta.tokens))
        self._text.append(piece.text)
        self._tokens += piece.tokens
        return piece

    def check_complete(self) -> None:
        """Raises `UnavailableError` for a stream that ended without an end of the answer."""
        if self.answer is None:
            text = f"the router at {self._connection.address} ended the answer without saying why"
            raise UnavailableError(text)

    def check_closed(self) -> None:
        """Raises `UnavailableError` where the client, rather than this exchange, was closed."""
        if not self.closed and self.answer is None:
            raise cut_off(self._connection.address)

    def delay_after(self, error: grpc.RpcError) -> float | None:
        """Seconds until the next try, now that one has failed; None: there is nothing to try.

        Raises the `PdserveError` that `error` stands for where the request is not sent again: when
        it has no place among those that may work later, some of the answer has come, or the tries
        or the time are used up. Delays grow from try to try and are drawn, so that clients that
        were turned away together do not come back together; the router's `retry_after_s` is the
        least.
        """
        if self.closed or self.answer is not None:
            return None
        failure = failure_of(error, self._connection.address, self._connection.tls)
        passing = isinstance(failure, UnavailableError | OverloadedError)
        cut = error.code() is grpc.StatusCode.CANCELLED
        if not passing or cut or self._first is not None or self._tries > self._connection.retries:
            raise failure from error
        longest = min(_FIRST_DELAY_S * 2 ** (self._tries - 1), _LONGEST_DELAY_S)
        delay_s = failure.retry_after_s + random.uniform(0, longest)
        if delay_s >= self._remaining_s():
            raise failure from error
        return delay_s

    def _remaining_s(self) -> float:
        assert self._sent is not None, "a try has begun"
        return self._sent + self._timeout_s - self._clock()

    def _complete(self, request_id: str, finished: router_pb2.Finished) -> Answer:
        assert self._sent is not None, "what is answered has been sent"
        assert self._first is not None, "the end is an event too"
        return Answer(
            request_id=request_id,
            text="".join(self._text),
            tokens=tuple(self._tokens),
            finish_reason=finish_reason_of(finished.reason),
            stop=finished.stop,
            usage=record_of(Usage, finished),
            ledger=ledger_of(finished.ledger),
            attempts=tuple(attempt_of(each) for each in finished.attempts),
            ttft_s=self._first - self._sent,
            total_s=self._clock() - self._sent,
        )


def answer_of(exchange: Exchange) -> Answer:
    """The answer of an exchange that has ended. Raises `RuntimeError` while there is none."""
    if exchange.answer is None:
        raise RuntimeError("the stream has not been read to its end")
    return exchange.answer
