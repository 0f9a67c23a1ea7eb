"""The gRPC methods of prefill."""

import time
from collections.abc import AsyncIterator

from grpc import aio

from pdserve.engine.events import Admitted, Sampled
from pdserve.errors import UnknownRequestError
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
        ref = instance.reply_ref(request.ref)
        outcome = "cancelled"
        with instance.host.request(job, lambda: self._transfers.settled(job.key)) as events:
            try:
                offer = self._transfers.open(job.key, ref, job.tokens)
                ended = await self._run(ref, events, offer, context)
                outcome = pb.PrefillFinished.Outcome.Name(ended).removeprefix("OUTCOME_").lower()
            finally:
                self._transfers.close_offer(job.key)
                self._metrics.requests.labels(outcome).inc()

    async def _run(
        self, ref: types_pb2.RequestRef, events: EventStream, offer: Offer, context: RunContext
    ) -> "pb.PrefillFinished.Outcome.ValueType":
        arrived = time.monotonic()
        admitted = await events.next()
        assert isinstance(admitted, Admitted)
        started = time.monotonic()
        self._metrics.queue.observe(started - arrived)
        self._metrics.tokens.labels("cached").inc(admitted.cached_tokens)
        self._metrics.tokens.labels("computed").inc(offer.tokens - admitted.cached_tokens)
        await context.write(
            pb.PrefillEvent(
                ref=ref,
                started=pb.PrefillStarted(
                    transfer_id=offer.transfer_id,
                    cached_tokens=admitted.cached_tokens,
                    queue_s=started - arrived,
                ),
            )
        )
        sampled = await events.next()
        assert isinstance(sampled, Sampled)
        compute_s = time.monotonic() - started
        self._metrics.compute.observe(compute_s)
        token = token_to_proto(sampled)
        if sampled.finish_reason is None:
            offer.complete(token)
        first = pb.PrefillFirstToken(
            token=token,
            finish_reason=reason_to_proto(sampled.finish_reason),
            compute_s=compute_s,
        )
        await context.write(pb.PrefillEvent(ref=ref, first_token=first))
        outcome: pb.PrefillFinished.Outcome.ValueType = pb.PrefillFinished.OUTCOME_COMPLETE
        if sampled.finish_reason is None:
            outcome = await self._held(offer, events)
        finished = pb.PrefillFinished(outcome=outcome)
        await context.write(pb.PrefillEvent(ref=ref, finished=finished))
        return outcome

    async def _held(
        self, offer: Offer, events: EventStream
    ) -> "pb.PrefillFinished.Outcome.ValueType":
        """Waits until the KV is pulled, released or expired."""
        end = await events.unless_ended(offer.ended())
        if end.outcome is Outcome.PULLED:
            self._metrics.transfer.observe(end.transfer_s)
            self._metrics.transfer_bytes.observe(end.bytes)
        return _OUTCOMES[end.outcome]

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
