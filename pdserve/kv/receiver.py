"""The decode side of KV transfer: pulls the KV of sequences into this rank's pool."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pdserve.errors import (
    DeadlineError,
    IncompatibleLayoutError,
    OverloadedError,
    PdserveError,
    StaleIncarnationError,
    TransferError,
    UnavailableError,
    UnknownRequestError,
)
from pdserve.kv.arrivals import Admission, PullResult
from pdserve.kv.backend import Backend, Link
from pdserve.kv.channel import Channel
from pdserve.kv.channel_pool import ChannelKey, ChannelPool
from pdserve.kv.config import TransferConfig
from pdserve.kv.incoming import GivenUpError, IncomingTransfer, Intake, PullCall
from pdserve.kv.layout import KvLayout, check_compatible, pull_plan, rank_part
from pdserve.kv.pool import KvPool
from pdserve.kv.reorder import Reorder
from pdserve.kv.segment import PoolShard
from pdserve.kv.store import PrefixStore, reach_store
from pdserve.kv.wire import layout_from_proto, layout_to_proto
from pdserve.rpc.v1 import prefill_pb2, types_pb2

log = logging.getLogger(__name__)

# Errors that a prefill elsewhere, or a later one, may not meet.
_CURABLE = (
    DeadlineError,
    GivenUpError,
    OverloadedError,
    StaleIncarnationError,
    UnavailableError,
    UnknownRequestError,
)


class _Pull:
    """What a caller asked for, over its attempts; `result` is what the caller waits for."""

    def __init__(
        self,
        key: str,
        ref: types_pb2.RequestRef,
        source: types_pb2.KvSource,
        call: PullCall,
        admitted: asyncio.Future[Admission],
        source_rank: int,
        on_progress: Callable[[int], None],
    ) -> None:
        self.key = key
        self.ref = ref
        self.source = source
        self.call = call
        self.admitted = admitted
        self.source_rank = source_rank
        self.on_progress = on_progress
        self.result: asyncio.Future[PullResult] = asyncio.get_running_loop().create_future()
        self.cancelled = ""
        self._transfer: IncomingTransfer | None = None

    def attempt(self, transfer: IncomingTransfer) -> None:
        """`transfer` is the attempt that counts now."""
        self._transfer = transfer
        transfer.result.add_done_callback(self._succeed)
        if self.cancelled:
            transfer.cancel(self.cancelled)

    def cancel(self, reason: str) -> None:
        """The caller has gone."""
        self.cancelled = reason
        if self._transfer is not None:
            self._transfer.cancel(reason)

    def fail(self, error: Exception) -> None:
        """No attempt has succeeded."""
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # a caller that has gone does not ask

    async def settled(self) -> None:
        """Returns once nobody is at the blocks."""
        if self._transfer is not None:
            await self._transfer.gate.settled()

    def _succeed(self, future: asyncio.Future[PullResult]) -> None:
        if not future.cancelled() and not self.result.done():
            self.result.set_result(future.result())


class Receiver:
    """Pulls KV into `pool`, which holds the shard of `layout` of rank `rank` of a decode instance.

    All methods belong to one event loop.
    """

    def __init__(
        self,
        incarnation: str,
        layout: KvLayout,
        rank: int,
        pool: KvPool,
        backend: Backend,
        config: TransferConfig,
    ) -> None:
        self._incarnation = incarnation
        self._layout = layout
        self._rank = rank
        self._shard = PoolShard(pool, rank_part(layout, rank))
        self._backend = backend
        self._config = config
        self._channels = ChannelPool(config)
        self._orders: dict[Channel, Reorder] = {}
        self._pulls: dict[_Pull, asyncio.Task[None]] = {}

    @property
    def transfers(self) -> int:
        """Pulls that have not ended, or whose channel still has something to do for them."""
        return len(self._pulls)

    @property
    def channels(self) -> int:
        """Channels whose threads run."""
        return len(self._channels)

    async def pull(
        self,
        key: str,
        ref: types_pb2.RequestRef,
        source: types_pb2.KvSource,
        call: PullCall,
        admitted: asyncio.Future[Admission],
        *,
        source_rank: int = 0,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> PullResult:
        """Pulls what rank `source_rank` of `source` holds of this rank's part of a sequence's KV.

        Binds to the source at once, and starts when `admitted` names the blocks. `on_progress` is
        called with the bytes that have landed so far. A failed channel is replaced once. Raises
        `TransferError` for all that another attempt of the request may cure, else the error of the
        call or of `admitted`. Cancelled or failed, it returns at once and leaves to `Receiver` what
        the channel still has to do; the blocks may be freed when `settled(key)` has returned.
        """
        pull = _Pull(key, ref, source, call, admitted, source_rank, on_progress)
        task = asyncio.create_task(self._run(pull), name=f"pull {key}")
        self._pulls[pull] = task
        task.add_done_callback(lambda _: self._pulls.pop(pull))
        try:
            return await asyncio.shield(pull.result)
        except asyncio.CancelledError:
            pull.cancel("the request was cancelled")
            raise

    async def settled(self, key: str) -> None:
        """Returns once nothing can land in the blocks of a pull that has returned: one copy."""
        for pull in [*self._pulls]:
            if pull.key == key:
                await pull.settled()

    async def close(self) -> None:
        """Ends every pull and every channel; takes about a segment's timeout at most."""
        tasks = [*self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channels.close()

    async def _run(self, pull: _Pull) -> None:
        """The task of one pull. All its errors go to `pull`."""
        request = pull.ref.request_id
        try:
            await self._attempts(pull)
        except _CURABLE as error:
            pull.fail(TransferError(str(error)))
        except PdserveError as error:
            pull.fail(error)
        except asyncio.CancelledError:
            pull.fail(TransferError("this instance pulls no KV any more"))
            raise
        except Exception as error:
            log.exception("request %s: pull failed", request)
            pull.fail(TransferError(f"pull failed: {error!r}"))

    async def _attempts(self, pull: _Pull) -> None:
        try:
            await self._attempt(pull)
        except TransferError as error:
            if pull.cancelled or isinstance(error, GivenUpError):
                raise
            log.warning("request %s: pulling once more: %s", pull.ref.request_id, error)
            await self._attempt(pull)

    async def _attempt(self, pull: _Pull) -> None:
        key = ChannelKey(pull.source.incarnation, self._incarnation, pull.source_rank, self._rank)
        transfer = IncomingTransfer(
            self._opening(key, pull.ref, pull.source),
            self._shard,
            self._config,
            lambda accepted: self._intake(key, accepted),
            pull.on_progress,
        )
        pull.attempt(transfer)
        try:
            await transfer.run(pull.call, pull.admitted)
        finally:
            # The next attempt, or the next owner of the blocks, must not meet this one's copies.
            await transfer.gate.settled()

    def _opening(
        self, key: ChannelKey, ref: types_pb2.RequestRef, source: types_pb2.KvSource
    ) -> prefill_pb2.PullKvRequest:
        return prefill_pb2.PullKvRequest(
            ref=types_pb2.RequestRef(
                request_id=ref.request_id, attempt=ref.attempt, incarnation=source.incarnation
            ),
            open=prefill_pb2.PullOpen(
                transfer_id=source.transfer_id,
                layout=layout_to_proto(self._layout),
                decode_incarnation=self._incarnation,
                rank=self._rank,
                channel_attempt=self._channels.lowest_usable(key),
            ),
        )

    @contextmanager
    def _intake(self, key: ChannelKey, accepted: prefill_pb2.PullAccepted) -> Iterator[Intake]:
        """Holds the channel that prefill has named."""
        theirs = layout_from_proto(accepted.layout)
        check_compatible(theirs, self._layout)
        part = pull_plan(theirs, self._layout, self._rank).get(accepted.rank)
        if part is None or accepted.rank != key.prefill_rank:
            raise IncompatibleLayoutError(
                f"decode rank {self._rank} has nothing to pull from prefill rank {accepted.rank}",
                field="rank",
            )

        def connect(attempt: int) -> Link:
            return self._connect(accepted.store_host, accepted.store_port, key.meeting(attempt))

        with self._channels.exact(key, accepted.channel_attempt, connect) as channel:
            yield Intake(channel, self._order(channel), part)

    def _order(self, channel: Channel) -> Reorder:
        if channel not in self._orders:
            self._orders[channel] = Reorder(channel, self._config.segment_timeout_s)
            channel.when_ended(lambda: self._forget(channel))
        return self._orders[channel]

    def _forget(self, channel: Channel) -> None:
        del self._orders[channel]

    def _connect(self, host: str, port: int, meeting: str) -> Link:
        store = reach_store(host, port, self._config)
        return self._backend.connect(PrefixStore(meeting, store), 1)
