"""A request while it runs: what outlives its attempts."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from pdserve.kv.layout import KvLayout
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.text.detokenizer import Detokenizer
from services.router.generation import FinishReason, Generation
from services.router.instance import Dispatch, Instance
from services.router.ledger import AttemptTimes, Timeline
from services.router.metrics import RouterMetrics
from services.router.outbox import Outbox
from services.router.output import Output
from services.router.placement.block_names import BlockChain
from services.router.placer import (
    Exclusion,
    Objectives,
    Placement,
    PlacementRequest,
    Refusal,
    Score,
)

# Enough that a client which reads at all never slows decode down.
OUTBOX_EVENTS = 64


class LiveRequest:
    """The output, the times and the attempts of one running `Generation`.

    `deadline` is on the monotonic clock. `timeline` is what the ledger is made of, `attempts` what
    the client is told of placements; the last of each belongs to the present attempt. `weighed` are
    the best placements of a request that was refused all of them.
    """

    def __init__(
        self,
        generation: Generation,
        detokenizer: Detokenizer,
        timeline: Timeline,
        deadline: float,
        metrics: RouterMetrics,
    ) -> None:
        self.generation = generation
        self.deadline = deadline
        self.timeline = timeline
        self.outbox = Outbox(OUTBOX_EVENTS)
        self.output = Output(detokenizer, generation.stops, generation.sampling.min_tokens)
        self.attempts: list[types_pb2.Attempt] = []
        self.weighed: list[types_pb2.ScoredPlacement] = []
        self.exclusions: dict[str, Exclusion] = {}
        self._blocks = BlockChain()
        self._fingerprint = ""
        self._ref = types_pb2.RequestRef(request_id=generation.request_id)
        self._metrics = metrics

    @property
    def times(self) -> AttemptTimes:
        """Of the present attempt."""
        return self.timeline.attempts[-1]

    @property
    def tokens_to_prefill(self) -> int:
        """Prompt and output so far."""
        return len(self.generation.prompt_token_ids) + len(self.output.token_ids)

    def remaining_s(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def objectives(self) -> Objectives:
        """What is left of the SLO. Only a request that has not been placed yet may be refused."""
        slo = self.generation.slo
        ttft_s = None
        if slo.HasField("ttft_ms") and not self.output.token_ids:
            ttft_s = self.timeline.received + slo.ttft_ms / 1e3 - time.monotonic()
        tpot_s = slo.tpot_ms / 1e3 if slo.HasField("tpot_ms") else None
        return Objectives(ttft_s, tpot_s, hard=slo.hard and not self.attempts)

    def urgency(self) -> types_pb2.Urgency:
        """How the present attempt ranks in the queue of an instance.

        Whoever has seen tokens already is waiting for the next one: that goes first.
        """
        if self.output.token_ids:
            return types_pb2.Urgency(priority=types_pb2.PRIORITY_HIGH)
        due_in_s = self.objectives().ttft_s
        return types_pb2.Urgency(priority=self.generation.priority, due_in_s=due_in_s)

    def placement_request(self) -> PlacementRequest:
        """What is to be placed now."""
        return PlacementRequest(
            tokens=self.tokens_to_prefill,
            total_tokens=self.generation.total_tokens,
            exclusions=self.exclusions,
            objectives=self.objectives(),
            priority=self.urgency().priority,
            block_names=self._block_names,
            fingerprint=self._fingerprint if self.output.token_ids else "",
        )

    def _block_names(self, layout: KvLayout) -> Sequence[int]:
        output = self.output.token_ids
        prompt = self.generation.prompt_token_ids
        return self._blocks.names([*prompt, *output] if output else prompt, layout)

    def dispatch(self, instance: Instance) -> AbstractContextManager[Dispatch]:
        """Counts the present attempt on an instance as long as the context lasts."""
        chosen = self.attempts[-1].candidates[:1]
        return instance.dispatch(
            self.tokens_to_prefill,
            chosen[0].cached_tokens if chosen else 0,
            self.urgency().priority,
            self.objectives(),
        )

    def refused(self, refusal: Refusal) -> None:
        """Keeps what was weighed before the request was refused."""
        self.weighed = [_scored(score) for score in refusal.scores]

    def begin_attempt(self, placement: Placement) -> None:
        """Opens the books for the next attempt."""
        now = time.monotonic()
        if not self.output.token_ids:
            self._fingerprint = placement.decode.layout.fingerprint
        self._ref.attempt = len(self.attempts) + 1
        self.timeline.attempts.append(AttemptTimes(dispatched=now))
        self.attempts.append(
            types_pb2.Attempt(
                number=self._ref.attempt,
                rung=placement.rung,
                prefill=placement.prefill.name if placement.prefill else "",
                decode=placement.decode.name,
                reason=placement.reason,
                candidates=[_scored(score) for score in placement.scores],
                considered=placement.considered,
                decision_s=placement.decision_s,
            )
        )
        if len(self.attempts) == 1:
            self._metrics.queue.observe(now - self.timeline.received)

    def end_attempt(self) -> None:
        """Notes how long the present attempt took."""
        self.attempts[-1].elapsed_s = time.monotonic() - self.times.dispatched

    def ref(self, incarnation: str) -> types_pb2.RequestRef:
        """Names the present attempt to the instance that is meant."""
        return types_pb2.RequestRef(
            request_id=self.generation.run_id,
            attempt=self._ref.attempt,
            incarnation=incarnation,
        )

    async def deliver(self, tokens: Sequence[types_pb2.Token]) -> FinishReason | None:
        """Hands tokens to the client; returns STOP when a stop string ends the output with them.

        Raises `DiscontinuityError` for tokens that do not go on where the last ended.
        """
        text, counted = self.output.take(tokens)
        self._note_tokens(len(counted))
        event = router_pb2.GenerateEvent(ref=self._ref)
        event.delta.text = text
        event.delta.tokens.extend(counted)
        self.outbox.put(event)
        await self.outbox.drain()
        return types_pb2.FINISH_REASON_STOP if self.output.stop is not None else None

    def reason_to_end(self) -> FinishReason | None:
        """Why the output so far is complete, whatever has become of the attempt; None: it is not.

        An instance may fail between its last token and saying that it was the last.
        """
        if self.output.stop is not None:
            return types_pb2.FINISH_REASON_STOP
        return self.generation.reason_to_end(self.output.token_ids)

    def end(self, reason: FinishReason) -> FinishReason:
        """Hands over the text that was held back; returns why the generation really ended.

        The last, unfinished character may yet complete a stop string.
        """
        if text := self.output.flush():
            event = router_pb2.GenerateEvent(ref=self._ref, delta=router_pb2.Delta(text=text))
            self.outbox.put(event)
        return types_pb2.FINISH_REASON_STOP if self.output.stop is not None else reason

    def written(self) -> None:
        """Notes that the client's stream has taken an event."""
        if self.timeline.delivered is None:
            self.timeline.delivered = time.monotonic()
            self._metrics.ttft.observe(self.timeline.delivered - self.timeline.received)

    def finished(self, reason: FinishReason) -> router_pb2.GenerateEvent:
        """The last event, and with it the ledger, as of now."""
        now = time.monotonic()
        count = len(self.output.token_ids)
        self._metrics.e2e.observe(now - self.timeline.received)
        if count > 1:
            self._metrics.tpot.observe(self.timeline.tpot_s(count))
        finished = router_pb2.Finished(
            reason=reason,
            prompt_tokens=len(self.generation.prompt_token_ids),
            output_tokens=count,
            cached_tokens=self.cached_tokens,
            ledger=self.timeline.settle(now, count),
            attempts=self.attempts,
            stop=self.output.stop or "",
        )
        return router_pb2.GenerateEvent(ref=self._ref, finished=finished)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that a prefix cache had for the attempt that produced the first token."""
        for attempt, times in zip(self.attempts, self.timeline.attempts, strict=True):
            if times.first_token is not None:
                return attempt.cached_tokens
        return 0

    def _note_tokens(self, count: int) -> None:
        now = time.monotonic()
        times = self.times
        # A first message of a later attempt ends a gap as well: the client has waited for it.
        previous = times.last_token or self.timeline.last_token
        if previous is not None:
            self._metrics.itl.observe(now - previous)
        times.tokens(now)
        self._metrics.tokens.inc(count)


def _scored(score: Score) -> types_pb2.ScoredPlacement:
    fields = asdict(score)
    bandwidth = fields.pop("bandwidth")
    return types_pb2.ScoredPlacement(bandwidth_bytes_per_s=bandwidth, **fields)
