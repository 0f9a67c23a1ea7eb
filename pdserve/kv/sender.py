"""The prefill side of KV transfer: offers, their leases, and the service of PullKv."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pdserve.errors import (
    IncompatibleLayoutError,
    InvalidRequestError,
    StaleIncarnationError,
    TransferError,
    UnavailableError,
    UnknownRequestError,
)
from pdserve.kv.backend import Backend, Link
from pdserve.kv.channel_pool import ChannelKey, ChannelPool
from pdserve.kv.config import TransferConfig
from pdserve.kv.layout import (
    KvLayout,
    KvPart,
    check_compatible,
    pull_plan,
    pullers,
    rank_part,
)
from pdserve.kv.lease import Leases
from pdserve.kv.offer import Offer, OfferEnd, Outcome
from pdserve.kv.outgoing import OutgoingTransfer, Say
from pdserve.kv.pool import KvPool
from pdserve.kv.segment import PoolShard
from pdserve.kv.store import PrefixStore, TCPStore, forget, open_store, reach_store
from pdserve.kv.wire import layout_from_proto, layout_to_proto
from pdserve.rpc.v1 import prefill_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class SenderCounts:
    """What a sender holds; all zero when nothing is under way and no channel is warm."""

    offers: int
    leases: int
    transfers: int
    channels: int


@dataclass(slots=True)
class _Binding:
    """An offer and the decode instance that pulls it, by decode rank."""

    offer: Offer
    decode_incarnation: str = ""
    transfers: dict[int, OutgoingTransfer] = field(default_factory=dict)
    # Bytes and seconds of the ranks that have pulled their part.
    pulled: dict[int, tuple[int, float]] = field(default_factory=dict)


class Sender:
    """Offers KV of rank `rank` of a prefill instance, and serves those who pull it.

    `pool` holds that rank's shard of `layout`. All methods belong to the event loop of `start`.
    """

    def __init__(
        self,
        incarnation: str,
        layout: KvLayout,
        rank: int,
        pool: KvPool,
        backend: Backend,
        config: TransferConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._incarnation = incarnation
        self._layout = layout
        self._rank = rank
        self._shard = PoolShard(pool, rank_part(layout, rank))
        self._backend = backend
        self._config = config
        self._leases = Leases(config.lease_s, clock)
        self._channels = ChannelPool(config)
        self._bindings: dict[str, _Binding] = {}
        # Transfers whose thread may still read blocks, by transfer id.
        self._unsettled: dict[str, set[OutgoingTransfer]] = {}
        self._store: TCPStore | None = None
        self._granted = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    @property
    def counts(self) -> SenderCounts:
        """What is held now."""
        return SenderCounts(
            offers=len(self._bindings),
            leases=len(self._leases),
            transfers=sum(len(transfers) for transfers in self._unsettled.values()),
            channels=len(self._channels),
        )

    async def start(self) -> None:
        """Opens the store where channels meet, and begins to watch leases.

        Raises `TransferError` when nothing can listen at `config.host`.
        """
        self._store = await asyncio.to_thread(open_store, self._config)
        self._watch = asyncio.create_task(self._watch_leases())

    async def close(self) -> None:
        """Withdraws every offer and ends every channel; takes about a segment's timeout at most."""
        for transfer_id in [*self._bindings]:
            self.withdraw(transfer_id)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._channels.close()
        self._store = None

    def offer(
        self,
        transfer_id: str,
        ref: types_pb2.RequestRef,
        tokens: int,
    ) -> Offer:
        """Offers the KV of `tokens` tokens, for `Offer.place` and the rest to say what is ready.

        `ref` names this incarnation. The blocks stay the sequence's until `Offer.ended` and then
        `settled` have returned.
        """
        if transfer_id in self._bindings:
            raise ValueError(f"transfer {transfer_id} is offered already")
        loop = asyncio.get_running_loop()

        def changed() -> None:
            loop.call_soon_threadsafe(self._changed, transfer_id)

        layers = self._shard.part.layers
        offer = Offer(transfer_id, ref, tokens, layers, changed)
        self._bindings[transfer_id] = _Binding(offer)
        return offer

    def withdraw(self, transfer_id: str) -> bool:
        """Ends an offer and whoever pulls it; False when there is none."""
        return self._end(transfer_id, OfferEnd(Outcome.WITHDRAWN), "the KV was released")

    async def settled(self, transfer_id: str) -> None:
        """Returns once nothing reads the blocks of an offer that has ended: within one copy."""
        for transfer in [*self._unsettled.get(transfer_id, ())]:
            await transfer.gate.settled()

    async def serve(self, requests: AsyncIterator[prefill_pb2.PullKvRequest], say: Say) -> None:
        """Serves one PullKv call: `say` writes a response to it.

        Returns when all is pulled, or when the transfer was cancelled or withdrawn, which `say` has
        then told. Raises a `PdserveError` for a call that cannot be served, `TransferError` when
        another attempt may succeed.
        """
        opening = await self._opening(requests)
        binding, part = self._admit(opening)
        offer, wanted = binding.offer, opening.open
        key = ChannelKey(self._incarnation, wanted.decode_incarnation, self._rank, wanted.rank)

        def renew() -> None:
            self._leases.renew(offer.transfer_id)

        def connect(attempt: int) -> Link:
            return self._connect(key, attempt)

        with self._channels.latest(key, wanted.channel_attempt, connect) as channel:
            transfer = OutgoingTransfer(offer, part, self._shard, channel, self._config, say, renew)
            self._bind(binding, wanted, transfer)
            try:
                if await transfer.run(self._acceptance(channel.attempt), requests):
                    self._pulled(binding, wanted, transfer)
            finally:
                self._unbind(binding, wanted.rank, transfer)
                # Not after the wait: that may be cancelled, and the blocks are read all the same.
                transfer.gate.when_settled(partial(self._settle, offer.transfer_id, transfer))
                await transfer.gate.settled()

    async def _opening(
        self, requests: AsyncIterator[prefill_pb2.PullKvRequest]
    ) -> prefill_pb2.PullKvRequest:
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                opening = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            raise InvalidRequestError("PullKv: the call names no transfer", field="open") from None
        if opening.WhichOneof("request") != "open":
            raise InvalidRequestError("PullKv: the first message must be open", field="open")
        return opening

    def _admit(self, opening: prefill_pb2.PullKvRequest) -> tuple[_Binding, KvPart]:
        """The offer that is meant, and the part of it that this rank sends."""
        ref, wanted = opening.ref, opening.open
        if ref.incarnation != self._incarnation:
            raise StaleIncarnationError(
                f"PullKv is meant for incarnation {ref.incarnation!r}; this is {self._incarnation}",
                field="ref.incarnation",
            )
        binding = self._bindings.get(wanted.transfer_id)
        if binding is None or binding.offer.ref != ref:
            raise UnknownRequestError(
                f"no KV is offered as transfer {wanted.transfer_id!r} of request "
                f"{ref.request_id!r}, attempt {ref.attempt}",
                field="open.transfer_id",
            )
        theirs = layout_from_proto(wanted.layout)
        check_compatible(self._layout, theirs)
        part = pull_plan(self._layout, theirs, wanted.rank).get(self._rank)
        if part is None:
            raise IncompatibleLayoutError(
                f"decode rank {wanted.rank} has nothing to pull from prefill rank {self._rank}",
                field="open.rank",
            )
        return binding, part

    def _bind(
        self, binding: _Binding, wanted: prefill_pb2.PullOpen, transfer: OutgoingTransfer
    ) -> None:
        """Makes `transfer` the one that counts; what it replaces is stopped."""
        if binding.decode_incarnation != wanted.decode_incarnation:
            for other in binding.transfers.values():
                other.stop("another decode instance pulls the KV")
            binding.decode_incarnation = wanted.decode_incarnation
            binding.pulled.clear()
        elif wanted.rank in binding.transfers:
            binding.transfers[wanted.rank].stop("the same rank pulls the KV anew")
        binding.transfers[wanted.rank] = transfer
        self._unsettled.setdefault(binding.offer.transfer_id, set()).add(transfer)
        self._leases.renew(binding.offer.transfer_id)

    def _unbind(self, binding: _Binding, rank: int, transfer: OutgoingTransfer) -> None:
        if binding.transfers.get(rank) is transfer:
            del binding.transfers[rank]

    def _settle(self, transfer_id: str, transfer: OutgoingTransfer) -> None:
        transfers = self._unsettled[transfer_id]
        transfers.discard(transfer)
        if not transfers:
            del self._unsettled[transfer_id]

    def _pulled(
        self, binding: _Binding, wanted: prefill_pb2.PullOpen, transfer: OutgoingTransfer
    ) -> None:
        """Ends the offer once every rank that needs a part of it has pulled."""
        if binding.transfers.get(wanted.rank) is not transfer:
            return
        binding.pulled[wanted.rank] = (transfer.bytes, transfer.transfer_s)
        everyone = pullers(self._layout, self._rank, layout_from_proto(wanted.layout))
        if everyone <= binding.pulled.keys():
            sent = sum(size for size, _ in binding.pulled.values())
            longest = max(seconds for _, seconds in binding.pulled.values())
            end = OfferEnd(Outcome.PULLED, sent, longest)
            self._end(binding.offer.transfer_id, end, "the KV was pulled")

    def _end(self, transfer_id: str, end: OfferEnd, reason: str) -> bool:
        binding = self._bindings.pop(transfer_id, None)
        if binding is None:
            return False
        self._leases.end(transfer_id)
        for transfer in binding.transfers.values():
            transfer.stop(reason, lost=end.outcome is Outcome.EXPIRED)
        binding.offer.end(end)
        return True

    def _changed(self, transfer_id: str) -> None:
        """An offer has progressed; its lease begins with its first token."""
        binding = self._bindings.get(transfer_id)
        if binding is None:
            return
        binding.offer.heard()
        for transfer in binding.transfers.values():
            transfer.wake()
        if binding.offer.first_token is not None:
            self._leases.grant(transfer_id)
            self._granted.set()

    async def _watch_leases(self) -> None:
        while True:
            self._granted.clear()
            for transfer_id in self._leases.expired():
                self._end(transfer_id, OfferEnd(Outcome.EXPIRED), "the lease has expired")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._leases.next_expiry_s()):
                    await self._granted.wait()

    def _acceptance(self, attempt: int) -> prefill_pb2.PullAccepted:
        if self._store is None:
            raise UnavailableError("this instance sends no KV any more")
        return prefill_pb2.PullAccepted(
            layout=layout_to_proto(self._layout),
            store_host=self._config.host,
            store_port=self._store.port,
            channel_attempt=attempt,
            rank=self._rank,
            lease_s=self._config.lease_s,
        )

    def _connect(self, key: ChannelKey, attempt: int) -> Link:
        """A client of the store for each link: one that waits for its peer blocks no other."""
        if self._store is None:
            raise TransferError("this instance sends no KV any more")
        store = reach_store(self._config.host, self._store.port, self._config)
        meeting = key.meeting(attempt)
        forget(store, key.prefix, keep=meeting)  # what the attempts before this one left
        return self._backend.connect(PrefixStore(meeting, store), 0)
