"""One decode rank pulling one offer, seen from prefill."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pdserve.errors import InvalidRequestError, TransferError
from pdserve.kv.channel import Channel
from pdserve.kv.config import TransferConfig
from pdserve.kv.gate import Gate
from pdserve.kv.layout import KvPart
from pdserve.kv.offer import Offer
from pdserve.kv.segment import PoolShard, next_segment
from pdserve.kv.segment_send import SegmentSend
from pdserve.rpc.v1 import prefill_pb2, types_pb2

T = TypeVar("T")

Say = Callable[[prefill_pb2.PullKvResponse], Awaitable[None]]


class StoppedError(Exception):
    """The transfer shall send nothing more; the text says why."""


class OutgoingTransfer:
    """Sends `part` of an offer over a channel, as far and as fast as it becomes ready.

    `bytes` and `transfer_s` are what was sent and in which time, from the first segment on.
    """

    def __init__(
        self,
        offer: Offer,
        part: KvPart,
        shard: PoolShard,
        channel: Channel,
        config: TransferConfig,
        say: Say,
        renew: Callable[[], None],
    ) -> None:
        self.gate = Gate()
        self.bytes = 0
        self.transfer_s = 0.0
        self._offer = offer
        self._part = part
        self._shard = shard
        self._channel = channel
        self._say = say
        self._renew = renew
        self._max_cells = config.segment_bytes // shard.pool.layout.cell_bytes
        self._heartbeat_s = config.heartbeat_s
        self._patience_s = config.segment_timeout_s
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[int] = self._loop.create_future()
        self._acked: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[str] = self._loop.create_future()
        self._lost = False
        self._changed = asyncio.Event()
        self._last_seq = 0
        self._complete = False
        # Announced to decode or about to be, oldest first: at most the two that a channel runs.
        self._sending: list[SegmentSend] = []

    def wake(self) -> None:
        """The offer has changed."""
        self._changed.set()

    def stop(self, reason: str, *, lost: bool = False) -> None:
        """Nothing more is read from the offer's blocks, once the gate has settled.

        `lost`: decode is gone for all that is known, and may not have received what was sent.
        """
        self.gate.shut()
        if not self._stopped.done():
            self._stopped.set_result(reason)
            self._lost = lost and not self._acked.done()

    async def run(
        self, accepted: prefill_pb2.PullAccepted, requests: AsyncIterator[prefill_pb2.PullKvRequest]
    ) -> bool:
        """Serves the call until all is pulled (True) or the transfer is stopped (False).

        Raises `TransferError` when the channel fails or decode reads nothing, and
        `InvalidRequestError` when it asks for what there is not. When the call itself breaks, or
        decode falls silent, what was sent takes the channel with it: nobody may be there to receive
        it, and not every backend finds that out by itself.
        """
        reader = asyncio.create_task(self._read(requests))
        in_step = False
        try:
            await self._tell(prefill_pb2.PullKvResponse(accepted=accepted))
            whole = await self._send_or_abort()
            in_step = not self._lost
            # Decode has nothing more to say and ends its side. A call must be read to that end to
            # be freed: gRPC keeps one whose pending read was cancelled, for ever.
            await asyncio.wait({reader}, timeout=self._patience_s)
            return whole
        finally:
            self.gate.shut()
            if not in_step and (self._last_seq or self._sending):
                self._channel.close("a pull broke off before decode had all that was sent")
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _send_or_abort(self) -> bool:
        try:
            await self._send_all(await self._unless_stopped(self._begun))
            await self._finish()
        except StoppedError as stop:
            await self._clear()
            await self._tell(prefill_pb2.PullKvResponse(aborted=self._abortion(str(stop))))
            return False
        return True

    async def _send_all(self, from_token: int) -> None:
        if from_token > self._offer.tokens:
            raise InvalidRequestError(
                f"from_token is {from_token}; the KV has {self._offer.tokens} tokens",
                field="from_token",
                limit=str(self._offer.tokens),
            )
        sent = [from_token] * len(self._part.layers)
        while min(sent) < self._offer.tokens:
            self._changed.clear()
            job = self._next_job(sent)
            if job is None:
                await self._change()
                continue
            await self._send(job)
            for layer in job.segment.layers:
                sent[layer - self._part.layers.start] = job.segment.tokens.stop

    async def _finish(self) -> None:
        while self._offer.first_token is None:
            self._changed.clear()
            await self._change()
        await self._clear()
        self._complete = True
        await self._tell(
            prefill_pb2.PullKvResponse(complete=self._completion(self._offer.first_token))
        )
        await self._unless_stopped(self._acked)

    def _next_job(self, sent: Sequence[int]) -> SegmentSend | None:
        progress = self._offer.progress()
        first = self._part.layers.start - self._offer.layers.start
        mine = slice(first, first + len(self._part.layers))
        segment = next_segment(self._part, sent, progress.tokens[mine], self._max_cells)
        if segment is None:
            return None
        marks = {progress.marks[layer - self._offer.layers.start] for layer in segment.layers}
        return SegmentSend(segment, tuple(marks), self._offer.blocks, self._shard, self.gate)

    async def _send(self, job: SegmentSend) -> None:
        """Puts `job` under way; returns while it and nothing before it may still be moving.

        Not interrupted by a stop between the submission and the announcement: decode must hear of
        every segment that is sent.
        """
        started = time.monotonic()
        self._channel.submit(job)
        self._sending.append(job)
        header = await self._holding(job.announced.future)
        if header is None:
            raise StoppedError(self._stopped.result())
        self._last_seq = header.channel_seq
        await self._tell(prefill_pb2.PullKvResponse(segment=header))
        if len(self._sending) == 2:
            await self._holding(self._sending[0].sent.future)
            del self._sending[0]
        self.bytes += header.bytes
        self.transfer_s += time.monotonic() - started

    async def _clear(self) -> None:
        """Returns when no segment is under way any more."""
        for job in self._sending:
            started = time.monotonic()
            await self._holding(job.sent.future)
            self.transfer_s += time.monotonic() - started
        self._sending.clear()

    async def _change(self) -> None:
        waiting = self._loop.create_task(self._changed.wait())
        try:
            await self._unless_stopped(waiting)
        finally:
            waiting.cancel()

    async def _unless_stopped(self, future: asyncio.Future[T]) -> T:
        """Waits like `_holding`. Raises `StoppedError` when the transfer is stopped before."""
        either: set[asyncio.Future[Any]] = {future, self._stopped}
        while not (await self._first_of(either)):
            await self._tell(prefill_pb2.PullKvResponse(keep_alive=prefill_pb2.PullKeepAlive()))
        if not future.done():
            raise StoppedError(self._stopped.result())
        return future.result()

    async def _holding(self, future: asyncio.Future[T]) -> T:
        """Waits for `future`, and meanwhile tells decode that this side is alive."""
        while not (await self._first_of({future})):
            await self._tell(prefill_pb2.PullKvResponse(keep_alive=prefill_pb2.PullKeepAlive()))
        return future.result()

    async def _first_of(self, futures: set[asyncio.Future[Any]]) -> bool:
        done, _ = await asyncio.wait(
            futures, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED
        )
        return bool(done)

    async def _read(self, requests: AsyncIterator[prefill_pb2.PullKvRequest]) -> None:
        """Takes in what decode says; the end of it stops the transfer."""
        try:
            async for request in requests:
                self._renew()
                self._take(request)
        finally:
            self.stop("decode ended the call", lost=True)

    def _take(self, request: prefill_pb2.PullKvRequest) -> None:
        match request.WhichOneof("request"):
            case "begin":
                if not self._begun.done():
                    self._begun.set_result(request.begin.from_token)
            case "ack":
                whole = self._complete and request.ack.channel_seq >= self._last_seq
                if whole and not self._acked.done():
                    self._acked.set_result(None)
            case "cancel":
                self.stop(f"decode: {request.cancel.reason}")

    async def _tell(self, response: prefill_pb2.PullKvResponse) -> None:
        response.ref.CopyFrom(self._offer.ref)
        try:
            async with asyncio.timeout(self._patience_s):
                await self._say(response)
        except TimeoutError:
            raise TransferError(f"decode read nothing for {self._patience_s:g} s") from None

    def _completion(self, first_token: types_pb2.Token) -> prefill_pb2.PullComplete:
        return prefill_pb2.PullComplete(
            tokens=self._offer.tokens,
            first_token=first_token,
            bytes=self.bytes,
            last_channel_seq=self._last_seq,
        )

    def _abortion(self, reason: str) -> prefill_pb2.PullAborted:
        return prefill_pb2.PullAborted(reason=reason, last_channel_seq=self._last_seq)
