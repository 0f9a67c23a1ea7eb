"""What the two legs of an attempt tell each other."""

import asyncio
from collections.abc import Callable

from pdserve.rpc.v1 import types_pb2


class Handoff:
    """The passing of one request from prefill to decode.

    Decode may open once `source` is known, and may deliver tokens once `first_token_out` is set: it
    can be ahead of prefill's own message with the first token. `on_landed` is called as soon as
    decode has the KV.
    """

    def __init__(self, on_landed: Callable[[], None] = lambda: None) -> None:
        self.source: asyncio.Future[types_pb2.KvSource | None] = asyncio.Future()
        self.first_token_out = asyncio.Event()
        self.kv_landed = False
        self._on_landed = on_landed

    @classmethod
    def none(cls) -> "Handoff":
        """For an attempt with one leg: decode prefills locally and has nothing to wait for."""
        handoff = cls()
        handoff.source.set_result(None)
        handoff.first_token_out.set()
        return handoff

    def land(self) -> None:
        """Decode has the KV."""
        self.kv_landed = True
        self._on_landed()

    @property
    def done(self) -> bool:
        """Whether nothing that happens to prefill can matter any more."""
        return self.kv_landed and self.first_token_out.is_set()
