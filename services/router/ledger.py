"""Where the time of one request went.

During the request only facts are written down: when what happened, on the router's monotonic clock.
At the end `settle` divides the time between receipt and end among the segments of the `Ledger`
message, each running from where the one before ended, so that they add up by construction.
"""

from dataclasses import dataclass, field

from pdserve.rpc.v1 import types_pb2


@dataclass(slots=True)
class AttemptTimes:
    """When what happened in one attempt; None: it did not. On the local rung, decode's admission
    is `started`: its prefill begins there.
    """

    dispatched: float
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    # Decode has its blocks; then all KV has landed, of which the last `transfer_s` moved bytes.
    admitted: float | None = None
    kv_ready: float | None = None
    transfer_s: float = 0.0
    transfer_bytes: int = 0

    def tokens(self, now: float) -> None:
        """Notes that tokens have come."""
        if self.first_token is None:
            self.first_token = now
        self.last_token = now


@dataclass(slots=True)
class Timeline:
    """When what happened to one request. `delivered`: its first token was handed to the client."""

    received: float
    delivered: float | None = None
    attempts: list[AttemptTimes] = field(default_factory=list)

    @property
    def first_token(self) -> float | None:
        """When the router had the first token."""
        times = (each.first_token for each in self.attempts if each.first_token is not None)
        return next(times, None)

    @property
    def last_token(self) -> float | None:
        """When the router had the newest token."""
        times = (each.last_token for each in reversed(self.attempts) if each.last_token is not None)
        return next(times, None)

    def tpot_s(self, output_tokens: int) -> float:
        """Mean gap between tokens after the first, as they came to the router."""
        if self.first_token is None or self.last_token is None or output_tokens < 2:
            return 0.0
        return (self.last_token - self.first_token) / (output_tokens - 1)

    def settle(self, ended: float, output_tokens: int) -> types_pb2.Ledger:
        """The ledger of a request that ended at `ended` with so many tokens.

        Without any, it has waited for the first until it ended: the TTFT is the total.
        """
        delivered = ended if self.delivered is None else self.delivered
        account = _Account(self.received)
        for attempt in self.attempts:
            if attempt.first_token is None:
                # Its time goes to what the next attempt that gets anywhere had to wait for.
                continue
            if attempt.first_token == self.first_token:
                _until_first_token(account, attempt, delivered)
            else:
                account.until("recovery_s", attempt.first_token)
            _hand_off(account, attempt)
            account.until("decode_steps_s", attempt.last_token)
        if self.first_token is None:
            _in_vain(account, self.attempts[-1:], ended)
        account.until(self._last_segment(), ended)
        return types_pb2.Ledger(
            **account.segments,
            ttft_s=delivered - self.received,
            total_s=ended - self.received,
            tpot_s=self.tpot_s(output_tokens),
            transfer_bytes=sum(attempt.transfer_bytes for attempt in self.attempts),
            transfer_wall_s=sum(attempt.transfer_s for attempt in self.attempts),
        )

    def _last_segment(self) -> str:
        lost = bool(self.attempts) and self.attempts[-1].first_token is None
        return "recovery_s" if lost else "decode_steps_s"


class _Account:
    """Divides time: each segment begins where the one before ended."""

    def __init__(self, begin: float) -> None:
        self.segments: dict[str, float] = {}
        self._cursor = begin

    def until(self, segment: str, end: float | None) -> None:
        """Gives the time up to `end` to `segment`; nothing where that has passed already."""
        if end is not None and end > self._cursor:
            self.segments[segment] = self.segments.get(segment, 0.0) + end - self._cursor
            self._cursor = end


def _until_first_token(account: _Account, attempt: AttemptTimes, delivered: float) -> None:
    account.until("router_queue_s", attempt.dispatched)
    account.until("prefill_queue_s", attempt.started)
    account.until("prefill_compute_s", attempt.first_token)
    account.until("first_token_out_s", delivered)


def _in_vain(account: _Account, last_attempt: list[AttemptTimes], ended: float) -> None:
    """Gives the time of a request without a token to what it got as far as."""
    segment = "router_queue_s"
    for attempt in last_attempt:
        account.until("router_queue_s", attempt.dispatched)
        account.until("prefill_queue_s", attempt.started)
        segment = "prefill_queue_s" if attempt.started is None else "prefill_compute_s"
    account.until(segment, ended)


def _hand_off(account: _Account, attempt: AttemptTimes) -> None:
    account.until("decode_admission_s", attempt.admitted)
    if attempt.kv_ready is not None:
        account.until("transfer_wait_s", attempt.kv_ready - attempt.transfer_s)
        account.until("transfer_s", attempt.kv_ready)
