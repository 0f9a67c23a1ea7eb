"""One life of a prefill or decode process: who it is, what it takes, how it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pdserve.errors import StaleIncarnationError, UnavailableError
from pdserve.instance.engine_host import EngineHost
from pdserve.instance.requests import RequestLimits
from pdserve.latency.online import CostLearner, LearnedCost
from pdserve.rpc.v1 import types_pb2
from pdserve.scheduling.load import QueuedWork


@dataclass(frozen=True, slots=True)
class TransferCounts:
    """What an instance holds of KV transfers. Channels that are warm count; they are no leak."""

    transfers: int
    channels: int
    leases: int = 0


class Instance:
    """Identity, limits, engine and condition of this process.

    `transfer_counts` returns what the role's end of the KV transfers holds.
    """

    def __init__(
        self,
        info: types_pb2.InstanceInfo,
        limits: RequestLimits,
        host: EngineHost,
        transfer_counts: Callable[[], TransferCounts],
        step_timeout_s: float,
    ) -> None:
        self.info = info
        self.limits = limits
        self.host = host
        self.draining = asyncio.Event()
        self._transfer_counts = transfer_counts
        self._step_timeout_s = step_timeout_s
        self._learner = CostLearner()

    @property
    def healthy(self) -> bool:
        """Whether new requests would be served: not draining, and no step is stuck."""
        stuck = self.host.step_age() > self._step_timeout_s
        return not (self.draining.is_set() or self.host.failure.done() or stuck)

    def check_incarnation(self, incarnation: str) -> None:
        """Raises `StaleIncarnationError` when another life of this instance was meant."""
        if incarnation and incarnation != self.info.incarnation:
            raise StaleIncarnationError(
                f"incarnation {incarnation} was meant; {self.info.name} is {self.info.incarnation}",
                field="ref.incarnation",
            )

    def check_accepts(self, ref: types_pb2.RequestRef) -> None:
        """Raises when the instance cannot take a new request: another life meant, or draining."""
        self.check_incarnation(ref.incarnation)
        if self.draining.is_set():
            raise UnavailableError(f"{self.info.name} is draining")

    def reply_ref(self, ref: types_pb2.RequestRef) -> types_pb2.RequestRef:
        """The reference that answers to `ref` carry."""
        return types_pb2.RequestRef(
            request_id=ref.request_id, attempt=ref.attempt, incarnation=self.info.incarnation
        )

    def report(self) -> types_pb2.LoadReport:
        """The instance as it is now."""
        load = self.host.load()
        scheduler, blocks = load.scheduler, load.blocks
        held = self._transfer_counts()
        return types_pb2.LoadReport(
            info=self.info,
            draining=self.draining.is_set(),
            waiting_requests=self.host.waiting,
            running_requests=self.host.requests - self.host.waiting,
            waiting_tokens=scheduler.waiting_tokens,
            context_tokens=scheduler.context_tokens,
            blocks=types_pb2.BlockCounts(
                free=blocks.free,
                active=blocks.active,
                cached=blocks.cached,
                quarantined=blocks.quarantined,
            ),
            transfers=held.transfers,
            channels=held.channels,
            leases=held.leases,
            tasks=self.host.requests + self.host.settling,
            steps=load.steps,
            step_age_s=self.host.step_age(),
            queued=[_queued_to_proto(work) for work in scheduler.queued],
            tpot_limit_s=scheduler.tpot_limit_s,
            decoding_requests=scheduler.decoding,
            cost=self._learned_cost(),
        )

    def _learned_cost(self) -> types_pb2.LearnedCost | None:
        """What the passes cost, by all steps so far."""
        for work, seconds in self.host.step_log.take():
            self._learner.observe(work.tokens, work.squares, work.batch, work.context, seconds)
        learned = self._learner.learned()
        return None if learned is None else _cost_to_proto(learned)


def _cost_to_proto(learned: LearnedCost) -> types_pb2.LearnedCost:
    prefill, decode = learned.prefill, learned.decode
    return types_pb2.LearnedCost(
        prefill_base_s=prefill.base_s,
        prefill_per_token_s=prefill.per_token_s,
        prefill_per_square_s=prefill.per_square_s,
        decode_base_s=decode.base_s,
        decode_per_context_token_s=decode.per_context_token_s,
        decode_per_sequence_s=decode.per_sequence_s,
        prefill_steps=learned.prefill_steps,
        decode_steps=learned.decode_steps,
    )


def _queued_to_proto(work: QueuedWork) -> types_pb2.QueuedWork:
    return types_pb2.QueuedWork(
        priority=types_pb2.Priority.ValueType(work.priority),
        requests=work.requests,
        tokens=work.tokens,
        squares=work.squares,
    )
