"""The gRPC methods of prefill."""

import time
from collections.abc import AsyncIterator

from grpc import aio

from pdserve.engine.events import Admitted, Sampled
from pdserve.errors import PdserveError, UnknownRequestError
from pdserve.instance.engine_host import EventStream
from pdserve.instance.life import Parts
from pdserve.instance.requests import engine_request, request_key
from pdserve.instance.tokens import reason_to_proto, token_to_proto
from pdserve.kv.offer import Offer, Outcome
from pdserve.rpc.errors import servicer_method
from pdserve.rpc.v1 import prefill_pb2 as pb
from pdserve.rpc.v1 import types_pb2
from pdserve.scheduling.sequence import Work
from services.prefill.transfers import PrefillTransfers

_OUTCOMES = {
    Outcome.PULLED: pb.PrefillFinished.OUTCOME_PULLED,
    Outcome.WITHDRAWN: pb.PrefillFinished.OUTCOME_RELEASED,
    Outcome.EXPIRED: pb.PrefillFinished.OUTCOME_LEASE_EXPIRED,
}

RunContext = aio.ServicerContext[pb.PrefillRequest, pb.PrefillEvent]


class Reply:
    """Writes the events of one request; `outcome` is how it ended, as far as is known."""

    def __init__(self, ref: types_pb2.RequestRef, context: RunContext) -> None:
        self.ref = ref
        self.outcome = "cancelled"
        self._context = context

    async def started(self, transfer_id: str, cached_tokens: int, queue_s: float) -> None:
        """The first chunk enters the device."""
        event = pb.PrefillStarted(
            transfer_id=transfer_id, cached_tokens=cached_tokens, queue_s=queue_s
        )
        await self._context.write(pb.PrefillEvent(ref=self.ref, started=event))

    async def first_token(self, sampled: Sampled, compute_s: float) -> None:
        """The token that the prompt leads to."""
        event = pb.PrefillFirstToken(
            token=token_to_proto(sampled),
            finish_reason=reason_to_proto(sampled.finish_reason),
            compute_s=compute_s,
        )
        await self._context.write(pb.PrefillEvent(ref=self.ref, first_token=event))

    async def finished(self, outcome: "pb.PrefillFinished.Outcome.ValueType") -> None:
        """KV is no longer held; whether the client hears this changes nothing."""
        self.outcome = pb.PrefillFinished.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()
        event = pb.PrefillFinished(outcome=outcome)
        await self._context.write(pb.PrefillEvent(ref=self.ref, finished=event))


class PrefillServicer:
    """Computes prompts, streams their first token, and holds their KV until it is pulled."""

    def __init__(self, parts: Parts[PrefillTransfers]) -> None:
        self._instance = parts.instance
        self._transfers = parts.transfers
        self._control = parts.control
        self._metrics = parts.metrics

    @servicer_method
    async def Run(self, request: pb.PrefillRequest, context: RunContext) -> None:  # noqa: N802
        """One request, from the queue until its KV is no longer held."""
        instance = self._instance
        instance.check_accepts(request.ref)
        job = engine_request(request, Work.PREFILL, instance.limits)
        reply = Reply(instance.reply_ref(request.ref), context)
        with (
            self._transfers.offering(job.key, reply.ref, job.tokens) as offer,
            instance.host.request(job, lambda: self._transfers.settled(job.key)) as events,
        ):
            try:
                sampled = await self._compute(events, offer, reply)
                if sampled.finish_reason is None:
                    await self._hold(events, offer, reply)
                else:
                    await reply.finished(pb.PrefillFinished.OUTCOME_COMPLETE)
            except PdserveError:
                reply.outcome = "failed"
                raise
            finally:
                self._metrics.requests.labels(reply.outcome).inc()

    async def _compute(self, events: EventStream, offer: Offer, reply: Reply) -> Sampled:
        """Waits for blocks and for the first token, and tells of both."""
        arrived = time.monotonic()
        admitted = await events.next()
        assert isinstance(admitted, Admitted)
        started = time.monotonic()
        self._metrics.queue.observe(started - arrived)
        self._metrics.tokens.labels("cached").inc(admitted.cached_tokens)
        self._metrics.tokens.labels("computed").inc(offer.tokens - admitted.cached_tokens)
        await reply.started(offer.transfer_id, admitted.cached_tokens, started - arrived)
        sampled = await events.next()
        assert isinstance(sampled, Sampled)
        compute_s = time.monotonic() - started
        self._metrics.compute.observe(compute_s)
        if sampled.finish_reason is None:
            offer.complete(token_to_proto(sampled))
        else:
            reply.outcome = "complete"
        await reply.first_token(sampled, compute_s)
        return sampled

    async def _hold(self, events: EventStream, offer: Offer, reply: Reply) -> None:
        """Waits until the KV is pulled, released or expired."""
        end = await events.unless_ended(offer.ended())
        if end.outcome is Outcome.PULLED:
            self._metrics.transfer.observe(end.transfer_s)
            self._metrics.transfer_bytes.observe(end.bytes)
        await reply.finished(_OUTCOMES[end.outcome])

    @servicer_method
    async def PullKv(  # noqa: N802
        self,
        requests: AsyncIterator[pb.PullKvRequest],
        context: aio.ServicerContext[pb.PullKvRequest, pb.PullKvResponse],
    ) -> None:
        """The control side of one transfer."""
        await self._transfers.sender.serve(requests, context.write)

    @servicer_method
    async def Release(  # noqa: N802
        self, request: pb.ReleaseRequest, _: object
    ) -> pb.ReleaseResponse:
        """Frees the KV of a request."""
        self._instance.check_incarnation(request.ref.incarnation)
        key = request_key(request.ref)
        if request.transfer_id not in ("", key):
            raise UnknownRequestError(
                f"transfer {request.transfer_id} does not belong to {key}", field="transfer_id"
            )
        released = self._transfers.sender.withdraw(key)
        return pb.ReleaseResponse(ref=self._instance.reply_ref(request.ref), released=released)

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
