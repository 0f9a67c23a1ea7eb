"""Connects the engine to the sender: what the engine computes, decode instances may pull."""

from collections.abc import Iterator
from contextlib import contextmanager

from pdserve.errors import InvalidRequestError
from pdserve.instance.instance import TransferCounts
from pdserve.kv.offer import Offer
from pdserve.kv.pool import KvPool
from pdserve.kv.sender import Sender
from pdserve.rpc.v1 import types_pb2


class PrefillTransfers:
    """The offers of the requests that run, by the engine's key, which is also the transfer id.

    Offers are opened and closed on the event loop; the engine's thread tells of progress.
    """

    def __init__(self, sender: Sender, pool: KvPool) -> None:
        self.sender = sender
        self._pool = pool
        self._offers: dict[str, Offer] = {}

    @property
    def listener(self) -> "PrefillTransfers":
        """Who is told of computed KV."""
        return self

    @contextmanager
    def offering(self, key: str, ref: types_pb2.RequestRef, tokens: int) -> Iterator[Offer]:
        """An offer of the KV of `tokens` tokens that the engine will compute under `key`.

        It must be open before the engine has the request, which may tell of blocks at once, and is
        withdrawn at the end. Raises `InvalidRequestError` on a key that is already running.
        """
        if key in self._offers:
            raise InvalidRequestError(f"request {key} is already running", field="ref")
        offer = self._offers[key] = self.sender.offer(key, ref, tokens)
        try:
            yield offer
        finally:
            del self._offers[key]
            self.sender.withdraw(key)

    async def settled(self, key: str) -> None:
        """Returns once nothing reads the blocks of an offer that was closed."""
        await self.sender.settled(key)

    def admitted(self, key: str, blocks: tuple[int, ...], cached_tokens: int) -> None:
        """The engine has allocated the blocks."""
        offer = self._offers.get(key)
        if offer is not None:
            offer.place(blocks, cached_tokens)

    def computed(self, key: str, layer_begin: int, layer_end: int, token_end: int) -> None:
        """The engine has enqueued the writes of these layers."""
        offer = self._offers.get(key)
        if offer is not None:
            offer.advance(layer_begin, layer_end, token_end, self._pool.mark())

    def counts(self) -> TransferCounts:
        """Open transfers, channels and leases."""
        counts = self.sender.counts
        return TransferCounts(counts.transfers, counts.channels, counts.leases)

    async def close(self) -> None:
        """Withdraws every offer and ends the channels."""
        await self.sender.close()
