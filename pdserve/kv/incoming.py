"""One rank pulling KV from one prefill rank, seen from decode."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any

from pdserve.errors import PdserveError, TransferError
from pdserve.kv.arrivals import Admission, Arrivals, PullResult
from pdserve.kv.channel import Channel
from pdserve.kv.config import TransferConfig
from pdserve.kv.gate import Gate
from pdserve.kv.layout import KvPart
from pdserve.kv.outbox import Outbox
from pdserve.kv.reorder import Reorder
from pdserve.kv.segment import PoolShard
from pdserve.kv.segment_receive import SegmentReceive
from pdserve.rpc.v1 import prefill_pb2

log = logging.getLogger(__name__)

Responses = AsyncGenerator[prefill_pb2.PullKvResponse, None]

# Opens PullKv: takes what decode says and yields what prefill answers. Closing the generator ends
# the call. Errors of the call are raised as `PdserveError`s.
PullCall = Callable[[AsyncIterator[prefill_pb2.PullKvRequest]], Responses]


class GivenUpError(TransferError):
    """One of the two sides gave the transfer up: the same pull again would fare no better."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What a pull receives through: a channel, its order, and the part that the two ranks share."""

    channel: Channel
    order: Reorder
    part: KvPart


# Finds the channel that prefill has named, and holds it.
Accept = Callable[[prefill_pb2.PullAccepted], AbstractContextManager[Intake]]


class IncomingTransfer:
    """Pulls a sequence's KV over one channel, into blocks that are known once it is admitted.

    `result` is known as soon as everything has landed; `run` takes leave of prefill after that.
    """

    def __init__(
        self,
        opening: prefill_pb2.PullKvRequest,
        shard: PoolShard,
        config: TransferConfig,
        accept: Accept,
        on_progress: Callable[[int], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.gate = Gate()
        self.result: asyncio.Future[PullResult] = loop.create_future()
        self._shard = shard
        self._config = config
        self._accept = accept
        self._on_progress = on_progress
        self._outbox = Outbox(opening)
        # Why the transfer ends early: decode wants it no more, or a segment did not land.
        self._cancelled: asyncio.Future[str] = loop.create_future()
        self._failed: asyncio.Future[Exception] = loop.create_future()
        self._landing: set[asyncio.Future[None]] = set()
        self._blocks: Sequence[int] = ()
        self._arrivals: Arrivals | None = None

    def cancel(self, reason: str) -> None:
        """Nothing lands in the blocks any more, once the gate has settled."""
        self.gate.shut()
        if not self._cancelled.done():
            self._cancelled.set_result(reason)

    async def run(self, call: PullCall, admitted: asyncio.Future[Admission]) -> None:
        """Runs the call to its end; without a result when it was cancelled.

        Raises `TransferError`, and whatever the call or `admitted` raises.
        """
        try:
            async with aclosing(call(self._outbox.messages())) as responses:
                accepted = await self._accepted(responses)
                if accepted is None:
                    return
                with self._accept(accepted) as intake:
                    await self._exchange(responses, intake, admitted)
                    await self._take_leave(responses)
        finally:
            self.gate.shut()
            self._outbox.end()

    async def _accepted(self, responses: Responses) -> prefill_pb2.PullAccepted | None:
        """Prefill's answer to the opening; None when decode did not want to wait for it."""
        answer = asyncio.create_task(self._next(responses, self._config.connect_timeout_s))
        try:
            ends: set[asyncio.Future[Any]] = {answer, self._cancelled}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._cancelled.done():
                return None
            response = answer.result()
        finally:
            await _end(answer)
        if response.WhichOneof("response") != "accepted":
            raise GivenUpError("prefill did not accept the pull")
        return response.accepted

    async def _exchange(
        self, responses: Responses, intake: Intake, admitted: asyncio.Future[Admission]
    ) -> None:
        """Receives until there is a result or an error, or the transfer was cancelled."""
        receiving = asyncio.create_task(self._receive(responses, intake))
        asking = asyncio.create_task(self._ask(intake.part, admitted))
        ends: set[asyncio.Future[Any]] = {receiving, asking, self._failed, self._cancelled}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                raise self._failed.result()
            if receiving.done():
                self._finish(receiving.result())
            else:
                self.cancel("not admitted")
                await self._drain(receiving, intake.channel)
                if asking.done():
                    asking.result()
        finally:
            await _end(receiving)
            await _end(asking)

    def _finish(self, result: PullResult) -> None:
        if not self._cancelled.done():
            self.result.set_result(result)

    async def _ask(self, part: KvPart, admitted: asyncio.Future[Admission]) -> None:
        """Tells prefill to begin once there is memory, and all the while that decode is alive."""
        while not (await asyncio.wait({admitted}, timeout=self._config.heartbeat_s))[0]:
            self._say_alive()
        if admitted.cancelled():
            raise GivenUpError("decode gave up waiting for memory")
        admission = admitted.result()
        self._blocks = tuple(admission.blocks)
        self._arrivals = Arrivals(part, admission, self._shard.pool.layout.cell_bytes)
        begin = prefill_pb2.PullBegin(from_token=admission.from_token)
        self._outbox.say(prefill_pb2.PullKvRequest(begin=begin))
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            self._say_alive()

    def _say_alive(self) -> None:
        self._outbox.say(prefill_pb2.PullKvRequest(keep_alive=prefill_pb2.PullKeepAlive()))

    async def _receive(self, responses: Responses, intake: Intake) -> PullResult:
        """Follows prefill's announcements to their end. Raises `TransferError` for a bad end."""
        while True:
            response = await self._next(responses, self._config.lease_s)
            match response.WhichOneof("response"):
                case "segment":
                    self._post(response.segment, intake)
                case "complete":
                    return await self._complete(response.complete)
                case "aborted":
                    raise GivenUpError(f"prefill gave the transfer up: {response.aborted.reason}")

    def _post(self, header: prefill_pb2.SegmentHeader, intake: Intake) -> None:
        """Has the segment received when its turn comes, acknowledged when it has landed."""
        try:
            if self._arrivals is None:
                raise TransferError("prefill announced a segment before it was asked to")
            segment = self._arrivals.announce(header)
            job = SegmentReceive(segment, header, self._blocks, self._shard, self.gate)
            self._landing.add(job.landed.future)
            job.landed.future.add_done_callback(lambda _: self._landed(job))
            intake.order.post(header.channel_seq, job)
        except TransferError as error:
            intake.channel.close(str(error))  # a segment that nobody receives blocks all others
            raise

    def _landed(self, job: SegmentReceive) -> None:
        future = job.landed.future
        self._landing.discard(future)
        error = future.exception()
        if error is None:
            assert self._arrivals is not None
            self._on_progress(self._arrivals.land(job.header.bytes))
            self._ack(job.header.channel_seq)
        elif isinstance(error, TransferError) and not self._failed.done():
            self._failed.set_result(error)

    def _ack(self, seq: int) -> None:
        ack = prefill_pb2.PullAck(channel_seq=seq)
        self._outbox.say(prefill_pb2.PullKvRequest(ack=ack))

    async def _complete(self, completion: prefill_pb2.PullComplete) -> PullResult:
        while self._landing:
            await asyncio.wait(self._landing)
        if self._arrivals is None:
            raise TransferError("prefill completed a pull that has not begun")
        result = self._arrivals.result(completion)
        self._ack(completion.last_channel_seq)
        return result

    async def _drain(self, receiving: asyncio.Task[PullResult], channel: Channel) -> None:
        """Receives, and throws away, what prefill sends until it has heard of the cancellation."""
        cancel = prefill_pb2.PullCancel(reason=self._cancelled.result())
        self._outbox.say(prefill_pb2.PullKvRequest(cancel=cancel))
        try:
            async with asyncio.timeout(self._config.segment_timeout_s):
                await asyncio.wait({receiving})
                while self._landing:
                    await asyncio.wait(self._landing)
        except TimeoutError:
            channel.close("prefill did not end a cancelled transfer")

    async def _take_leave(self, responses: Responses) -> None:
        """Lets prefill hear the last ack. Whatever happens here changes nothing for decode."""
        self._outbox.end()
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                async for _ in responses:
                    pass
        except (PdserveError, TimeoutError) as error:
            log.debug("a pull ended without leave: %s", error)

    async def _next(self, responses: Responses, patience_s: float) -> prefill_pb2.PullKvResponse:
        try:
            async with asyncio.timeout(patience_s):
                return await anext(responses)
        except TimeoutError:
            raise GivenUpError(f"prefill was silent for {patience_s:g} s") from None
        except StopAsyncIteration:
            raise TransferError("prefill ended the call early") from None


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancels `task` and waits for it; its error has been raised, or is beside the point."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
