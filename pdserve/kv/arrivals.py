"""What has arrived of a pull."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pdserve.errors import TransferError
from pdserve.kv.layout import KvPart
from pdserve.kv.segment import Segment
from pdserve.rpc.v1 import prefill_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Admission:
    """Decode memory for a sequence: `tokens` tokens in `blocks`, the first `from_token` filled."""

    blocks: Sequence[int]
    from_token: int
    tokens: int


@dataclass(frozen=True, slots=True)
class PullResult:
    """A finished pull: `wait_s` from admission to the first segment, `transfer_s` from then on.

    `link_s` is the part of `transfer_s` during which a segment was on its way, announced and not
    landed: `bytes / link_s` is the bandwidth even where the transfer waited for the computation.
    """

    first_token: types_pb2.Token
    bytes: int
    wait_s: float
    transfer_s: float
    link_s: float


class Arrivals:
    """Checks that the segments of one pull are exactly the KV that was asked for; times them."""

    def __init__(
        self,
        part: KvPart,
        admission: Admission,
        cell_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bytes = 0
        self._part = part
        self._admission = admission
        self._cell_bytes = cell_bytes
        self._clock = clock
        # Tokens announced, per layer of the part.
        self._announced = [admission.from_token] * len(part.layers)
        self._admitted_at = clock()
        self._first_at: float | None = None
        self._last_at = self._admitted_at
        self._on_the_way = 0
        self._busy_since = 0.0
        self._link_s = 0.0

    def announce(self, header: prefill_pb2.SegmentHeader) -> Segment:
        """Returns the segment of `header`. Raises `TransferError` unless it is one that is due."""
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        segment = Segment(
            range(header.layer_begin, header.layer_end),
            range(header.head_begin, header.head_end),
            range(header.token_begin, header.token_end),
        )
        if not self._due(segment) or header.bytes != segment.size(self._cell_bytes):
            raise TransferError(
                f"prefill announced {segment} of {header.bytes} bytes; of {self._part}, tokens "
                f"{self._announced} of {self._admission.tokens} have been announced before"
            )
        for layer in segment.layers:
            self._announced[layer - self._part.layers.start] = segment.tokens.stop
        if not self._on_the_way:
            self._busy_since = now
        self._on_the_way += 1
        return segment

    def land(self, size: int) -> int:
        """Counts an announced segment that has landed; returns the bytes so far."""
        self.bytes += size
        self._last_at = self._clock()
        self._on_the_way -= 1
        if not self._on_the_way:
            self._link_s += self._last_at - self._busy_since
        return self.bytes

    def result(self, completion: prefill_pb2.PullComplete) -> PullResult:
        """The end, once every announced segment has landed.

        Raises `TransferError` when that is not the KV of exactly the tokens that were admitted.
        """
        tokens = self._admission.tokens
        if completion.tokens != tokens or min(self._announced) != tokens:
            raise TransferError(
                f"prefill ended after {min(self._announced)} of its {completion.tokens} tokens; "
                f"decode expected {tokens}"
            )
        first_at = self._last_at if self._first_at is None else self._first_at
        return PullResult(
            first_token=completion.first_token,
            bytes=self.bytes,
            wait_s=first_at - self._admitted_at,
            transfer_s=self._last_at - first_at,
            link_s=self._link_s,
        )

    def _due(self, segment: Segment) -> bool:
        layers, tokens = segment.layers, segment.tokens
        if segment.heads != self._part.heads or not layers or not tokens:
            return False
        if layers.start < self._part.layers.start or layers.stop > self._part.layers.stop:
            return False
        before = {self._announced[layer - self._part.layers.start] for layer in layers}
        return before == {tokens.start} and tokens.stop <= self._admission.tokens
