"""Why requests went as they did: of those that run, and of those that have lately ended."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pdserve.errors import DeadlineError, PdserveError, UnknownRequestError
from pdserve.rpc.errors import error_detail, shortened
from pdserve.rpc.v1 import router_pb2, types_pb2
from services.router.ledger import Timeline
from services.router.live import LiveRequest
from services.router.metrics import ClientGoneError

State: TypeAlias = Literal["running", "finished", "failed", "refused", "cancelled"]
# The client's API key and the request's id: nobody sees, or displaces, what another has sent.
_Key: TypeAlias = tuple[str, str]


class Record:
    """What is known of one request, from its receipt on."""

    def __init__(self, request: router_pb2.GenerateRequest, received: float) -> None:
        self.received = received
        self._slo = request.slo
        self._priority = request.priority
        self._live: LiveRequest | None = None
        self._ledger: types_pb2.Ledger | None = None

    def accepted(self, live: LiveRequest) -> None:
        """The request is valid, and runs as `live`."""
        self._live = live
        self._slo = live.generation.slo
        self._priority = live.generation.priority

    def finished(self, finished: router_pb2.Finished) -> None:
        """The request has come to its end, of which its client is about to be told."""
        self._ledger = finished.ledger

    @property
    def state(self) -> State:
        """Of a request that has not failed."""
        return "running" if self._ledger is None else "finished"

    def explanation(
        self, state: State, error: PdserveError | None = None
    ) -> router_pb2.ExplainResponse:
        """All that depends on the request alone, as of now; with a ledger once it has ended."""
        explanation = router_pb2.ExplainResponse(
            state=state, slo=self._slo, priority=self._priority
        )
        if state != "running":
            explanation.ledger.CopyFrom(self._ledger or self._settled())
        if error is not None:
            explanation.error.CopyFrom(error_detail(error))
            explanation.error_text = shortened(str(error))
        if self._live is not None:
            explanation.prompt_tokens = len(self._live.generation.prompt_token_ids)
            explanation.output_tokens = len(self._live.output.token_ids)
            explanation.cached_tokens = self._live.cached_tokens
            explanation.attempts.extend(self._live.attempts)
            explanation.weighed.extend(self._live.weighed)
        return explanation

    def state_after(self, error: PdserveError) -> State:
        """What `error` makes of the request: refused if it was never placed."""
        placed = self._live is not None and self._live.attempts
        return "failed" if placed or isinstance(error, DeadlineError) else "refused"

    def _settled(self) -> types_pb2.Ledger:
        timeline = self._live.timeline if self._live else Timeline(self.received)
        count = len(self._live.output.token_ids) if self._live else 0
        return timeline.settle(time.monotonic(), count)


@dataclass(frozen=True, slots=True)
class _Ended:
    """Serialized, since there are thousands of them and few are ever asked for."""

    received: float
    explanation: bytes


class Explanations:
    """The records of all requests that run, and of the last `limit` that have ended.

    `router` is the name that explanations give as theirs.
    """

    def __init__(self, limit: int, router: str) -> None:
        self._limit = limit
        self._router = router
        self._running: dict[_Key, Record] = {}
        self._ended: OrderedDict[_Key, _Ended] = OrderedDict()

    @contextmanager
    def record(
        self, request: router_pb2.GenerateRequest, request_id: str, client: str, received: float
    ) -> Iterator[Record]:
        """Keeps a request of `client` as long as the context lasts, and then how it ended.

        An id that is in use stands for the request that has it, not for one that is refused for it.
        """
        key = (client, request_id)
        record = Record(request, received)
        kept = self._running.setdefault(key, record)
        state: State = "failed"
        error: PdserveError | None = None
        try:
            yield record
            state = "finished"
        except PdserveError as raised:
            state, error = record.state_after(raised), raised
            raise
        except (asyncio.CancelledError, ClientGoneError):
            state = "cancelled"
            raise
        finally:
            if kept is record:
                del self._running[key]
            self._remember(key, record, record.explanation(state, error))

    def find(self, request_id: str, client: str) -> router_pb2.ExplainResponse:
        """The explanation of a request that `client` has sent. Raises `UnknownRequestError`."""
        key = (client, request_id)
        if record := self._running.get(key):
            received, explanation = record.received, record.explanation(record.state)
        elif ended := self._ended.get(key):
            received = ended.received
            explanation = router_pb2.ExplainResponse.FromString(ended.explanation)
        else:
            raise UnknownRequestError(
                f"request {request_id!r} is not known here; the last {self._limit} that have "
                "ended are (explain_requests)",
                field="request_id",
                limit=str(self._limit),
            )
        explanation.request_id = request_id
        explanation.router = self._router
        explanation.age_s = time.monotonic() - received
        return explanation

    def _remember(self, key: _Key, record: Record, explanation: router_pb2.ExplainResponse) -> None:
        self._ended.pop(key, None)
        self._ended[key] = _Ended(record.received, explanation.SerializeToString())
        if len(self._ended) > self._limit:
            self._ended.popitem(last=False)
