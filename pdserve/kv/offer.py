"""Offers: the KV of sequences that prefill computes and that decode may pull."""

import asyncio
import enum
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pdserve.kv.promise import Promise
from pdserve.rpc.v1 import types_pb2


class Outcome(enum.Enum):
    """Why KV is no longer offered."""

    PULLED = "pulled"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class OfferEnd:
    """How an offer ended; what was sent in the transfer that pulled it, and in which time."""

    outcome: Outcome
    bytes: int = 0
    transfer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What of an offer is ready: per layer of the rank, tokens and the engine's mark for them."""

    tokens: Sequence[int]
    marks: Sequence[object]


class Offer:
    """The KV of one sequence in a rank's pool, from its first chunk until nobody wants it any more.

    `advance` and `complete` may be called in any thread, and take microseconds. The first
    `cached_tokens` were there before and are ready. `layers` are those that the rank holds.
    """

    def __init__(
        self,
        transfer_id: str,
        ref: types_pb2.RequestRef,
        blocks: Sequence[int],
        tokens: int,
        cached_tokens: int,
        layers: range,
        on_change: Callable[[], None],
    ) -> None:
        self.transfer_id = transfer_id
        self.ref = ref
        self.blocks = tuple(blocks)
        self.tokens = tokens
        self.layers = layers
        self.first_token: types_pb2.Token | None = None
        self._lock = threading.Lock()
        self._ready = [cached_tokens] * len(layers)
        self._marks: list[object] = [None] * len(layers)
        self._on_change = on_change
        self._change_is_known = True
        self._ended = Promise[OfferEnd](asyncio.get_running_loop())

    def advance(self, layer_begin: int, layer_end: int, token_end: int, ready: object) -> None:
        """KV of these layers, counted over the whole model, is written up to `token_end`.

        `ready` marks when: None on CPU, on CUDA an event recorded after the writes.
        """
        with self._lock:
            for layer in range(layer_begin - self.layers.start, layer_end - self.layers.start):
                self._ready[layer] = token_end
                self._marks[layer] = ready
        self._tell()

    def complete(self, first_token: types_pb2.Token) -> None:
        """All KV is written, and this is the token sampled from it."""
        self.first_token = first_token
        self._tell()

    def progress(self) -> Progress:
        """What is ready now; a change after this call is told again."""
        with self._lock:
            self._change_is_known = True
            return Progress(tuple(self._ready), tuple(self._marks))

    async def ended(self) -> OfferEnd:
        """Waits until the KV is no longer offered, and returns why.

        Blocks may be freed once `Sender.settled` has returned as well.
        """
        return await asyncio.shield(self._ended.future)

    def end(self, end: OfferEnd) -> None:
        """Called by the sender."""
        self._ended.resolve(end)

    def _tell(self) -> None:
        """Wakes the event loop once for all changes since it last looked."""
        with self._lock:
            known, self._change_is_known = self._change_is_known, False
        if known:
            self._on_change()
