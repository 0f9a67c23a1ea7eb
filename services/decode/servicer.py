"""The gRPC methods of decode."""

import asyncio
import time

from grpc import aio

from pdserve.engine.engine import EngineRequest
from pdserve.engine.events import Admitted, Event, Sampled
from pdserve.errors import PdserveError
from pdserve.instance.engine_host import EventStream
from pdserve.instance.life import Parts
from pdserve.instance.requests import engine_request
from pdserve.instance.tokens import reason_to_proto, token_to_proto
from pdserve.kv.arrivals import Admission, PullResult
from pdserve.rpc.errors import servicer_method
from pdserve.rpc.v1 import decode_pb2 as pb
from pdserve.rpc.v1 import types_pb2
from pdserve.scheduling.sequence import Work
from pdserve.tasks import task_group
from services.decode.transfers import DecodeTransfers

RunContext = aio.ServicerContext[pb.DecodeRequest, pb.DecodeEvent]


class Reply:
    """Writes the events of one request; `outcome` is how it ended, as far as is known."""

    def __init__(self, ref: types_pb2.RequestRef, context: RunContext) -> None:
        self.ref = ref
        self.context = context
        self.outcome = "cancelled"

    async def admitted(self, cached_tokens: int, queue_s: float) -> None:
        """The request has its blocks."""
        event = pb.DecodeAdmitted(cached_tokens=cached_tokens, queue_s=queue_s)
        await self.context.write(pb.DecodeEvent(ref=self.ref, admitted=event))

    async def kv_ready(self, pulled: PullResult) -> None:
        """The KV has landed."""
        event = pb.DecodeKvReady(
            wait_s=pulled.wait_s,
            transfer_s=pulled.transfer_s,
            bytes=pulled.bytes,
            link_s=pulled.link_s,
        )
        await self.context.write(pb.DecodeEvent(ref=self.ref, kv_ready=event))

    async def tokens(self, tokens: list[types_pb2.Token]) -> None:
        """Tokens, in order."""
        await self.context.write(
            pb.DecodeEvent(ref=self.ref, tokens=pb.DecodeTokens(tokens=tokens))
        )

    async def finished(self, last: Sampled) -> None:
        """The last token has been written; whether the client hears this changes nothing."""
        self.outcome = "finished"
        event = pb.DecodeFinished(
            reason=reason_to_proto(last.finish_reason),
            output_tokens=last.index + 1,
            preemptions=last.preemptions,
        )
        await self.context.write(pb.DecodeEvent(ref=self.ref, finished=event))


class DecodeServicer:
    """Generates tokens from KV that it pulls or computes."""

    def __init__(self, parts: Parts[DecodeTransfers]) -> None:
        self._instance = parts.instance
        self._transfers = parts.transfers
        self._control = parts.control
        self._metrics = parts.metrics

    @servicer_method
    async def Run(self, request: pb.DecodeRequest, context: RunContext) -> None:  # noqa: N802
        """One request, from the queue until its last token."""
        host = self._instance.host
        self._instance.check_accepts(request.ref)
        remote = request.HasField("kv_source")
        work = Work.DECODE if remote else Work.BOTH
        job = engine_request(request, work, self._instance.limits)
        reply = Reply(self._instance.reply_ref(request.ref), context)
        settled = (lambda: self._transfers.settled(job.key)) if remote else None
        with host.request(job, settled) as events:
            try:
                if remote:
                    await self._receive(job, request.kv_source, events, reply)
                else:
                    await self._admitted(events, reply)
                await self._generate(job, events, reply)
            except PdserveError:
                reply.outcome = "failed"
                raise
            finally:
                self._metrics.requests.labels(reply.outcome).inc()

    async def _admitted(self, events: EventStream, reply: Reply) -> Admitted:
        arrived = time.monotonic()
        admitted = await events.next()
        assert isinstance(admitted, Admitted)
        queue_s = time.monotonic() - arrived
        self._metrics.queue.observe(queue_s)
        self._metrics.tokens.labels("cached").inc(admitted.cached_tokens)
        await reply.admitted(admitted.cached_tokens, queue_s)
        return admitted

    async def _receive(
        self,
        job: EngineRequest,
        source: types_pb2.KvSource,
        events: EventStream,
        reply: Reply,
    ) -> None:
        """Binds to the source at once, pulls when the blocks are there, and starts decoding."""
        admission: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        timeout_s = reply.context.time_remaining()
        async with task_group() as group:
            admitting = group.create_task(self._admit(job, events, reply, admission))
            result = await self._transfers.pull(job.key, reply.ref, source, admission, timeout_s)
            admitting.cancel()
        first_token = result.first_token.id
        self._instance.host.submit(lambda engine: engine.loaded(job.key, first_token))
        self._metrics.transfer_wait.observe(result.wait_s)
        self._metrics.transfer.observe(result.transfer_s)
        self._metrics.transfer_bytes.observe(result.bytes)
        await reply.kv_ready(result)

    async def _admit(
        self,
        job: EngineRequest,
        events: EventStream,
        reply: Reply,
        admission: "asyncio.Future[Admission]",
    ) -> None:
        """Tells the pull where to put the KV, and raises what ends the request meanwhile."""
        admitted = await self._admitted(events, reply)
        admission.set_result(Admission(admitted.blocks, admitted.cached_tokens, job.tokens))
        await events.next()  # until the KV is there, nothing can come but the end

    async def _generate(self, job: EngineRequest, events: EventStream, reply: Reply) -> None:
        """Streams tokens; those after the first that prefill sampled, when there was one."""
        first = len(job.output_ids) + (1 if job.work is Work.DECODE else 0)
        # With remote prefill the first gap began there; with local prefill there is none yet.
        previous = time.monotonic() if job.work is Work.DECODE else None
        while True:
            batch = _sampled(await events.next_batch())
            fresh = [sampled for sampled in batch if sampled.index >= first]
            if fresh:
                now = time.monotonic()
                if previous is not None:
                    self._metrics.itl.observe((now - previous) / len(fresh))
                self._metrics.tokens.labels("generated").inc(len(fresh))
                previous = now
                await reply.tokens([token_to_proto(sampled) for sampled in fresh])
            last = batch[-1]
            if last.finish_reason is not None:
                self._metrics.preemptions.inc(last.preemptions)
                await reply.finished(last)
                return

    @servicer_method
    async def WatchLoad(  # noqa: N802
        self,
        request: types_pb2.WatchLoadRequest,
        context: aio.ServicerContext[types_pb2.WatchLoadRequest, types_pb2.LoadReport],
    ) -> None:
        """Load reports, on every change and at least every interval."""
        await self._control.watch_load(request, context)

    @servicer_method
    async def Drain(  # noqa: N802
        self, request: types_pb2.DrainRequest, _: object
    ) -> types_pb2.DrainResponse:
        """Takes no new requests and lets running ones finish."""
        return await self._control.drain(request)


def _sampled(events: list[Event]) -> list[Sampled]:
    return [event for event in events if isinstance(event, Sampled)]
