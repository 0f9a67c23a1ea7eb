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
    """The KV of one sequence of `tokens` tokens, until nobody wants it any more.

    `place`, `advance` and `complete` may be called in any thread, and take microseconds. `layers`
    are those that the rank holds.
    """

    def __init__(
        self,
        transfer_id: str,
        ref: types_pb2.RequestRef,
        tokens: int,
        layers: range,
        on_change: Callable[[], None],
    ) -> None:
        self.transfer_id = transfer_id
        self.ref = ref
        self.blocks: tuple[int, ...] = ()
        self.tokens = tokens
        self.layers = layers
        self.first_token: types_pb2.Token | None = None
        self._lock = threading.Lock()
        self._ready = [0] * len(layers)
        self._marks: list[object] = [None] * len(layers)
        self._on_change = on_change
        self._told = False
        self._ended = Promise[OfferEnd](asyncio.get_running_loop())

    def place(self, blocks: Sequence[int], cached_tokens: int) -> None:
        """The KV is to be in `blocks`; that of the first `cached_tokens` is there already."""
        with self._lock:
            self.blocks = tuple(blocks)
            self._ready = [cached_tokens] * len(self.layers)
        self._tell()

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
        """All KV is written (a token cannot be sampled before), and this is the first token."""
        with self._lock:
            self._ready = [self.tokens] * len(self.layers)
            self.first_token = first_token
        self._tell()

    def progress(self) -> Progress:
        """What is ready now."""
        with self._lock:
            return Progress(tuple(self._ready), tuple(self._marks))

    def heard(self) -> None:
        """Called by the sender before it looks: changes from now on are told again."""
        with self._lock:
            self._told = False

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
            told, self._told = self._told, True
        if not told:
            self._on_change()
