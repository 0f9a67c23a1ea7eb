"""The engine of one instance: schedule, run, commit."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pdserve.engine.events import Admitted, Event, Sampled
from pdserve.engine.sampler import SampledToken
from pdserve.engine.step_log import StepLog
from pdserve.kv.blocks import BlockCounts
from pdserve.kv.cache_log import CacheLog
from pdserve.kv.prefix import HashChain
from pdserve.sampling import SamplingParams
from pdserve.scheduling import sequence as seq
from pdserve.scheduling.batching import Chunk
from pdserve.scheduling.load import SchedulerLoad
from pdserve.scheduling.scheduler import Scheduler
from pdserve.scheduling.step_work import step_work
from pdserve.scheduling.urgency import ORDINARY, Urgency

Chunks = Sequence[Chunk[seq.Sequence]]
LayersDone = Callable[[int, int], None]


class Runner(Protocol):
    """Computes the KV of chunks and samples the next token where a chunk ends its sequence."""

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """One result a chunk; calls `layers_done(begin, end)` after each group of layers."""
        ...


class KvListener(Protocol):
    """Is told, on the engine's thread, how far the KV of prefilled sequences is."""

    def admitted(self, key: str, blocks: tuple[int, ...], cached_tokens: int) -> None:
        """The sequence has its blocks; the KV of the first `cached_tokens` is there."""
        ...

    def computed(self, key: str, layer_begin: int, layer_end: int, token_end: int) -> None:
        """KV of these layers is written for the tokens before `token_end`."""
        ...


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A request as the engine takes it; `key` is unique among live ones.

    `urgency` is on the scheduler's clock; `tpot_limit_s` is the request's TPOT objective, 0: none.
    """

    key: str
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    sampling: SamplingParams
    work: seq.Work
    urgency: Urgency = ORDINARY
    tpot_limit_s: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of prompt and output so far."""
        return len(self.prompt_ids) + len(self.output_ids)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """A snapshot of the engine."""

    scheduler: SchedulerLoad
    blocks: BlockCounts
    steps: int


class Engine:
    """Owns the sequences of an instance and computes them step by step.

    One thread uses it; others may take from `step_log` and follow `cache_log`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        *,
        fingerprint: str,
        block_size: int,
        eos_token_ids: frozenset[int],
        listener: KvListener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.step_log = StepLog()
        self._scheduler = scheduler
        self._runner = runner
        self._fingerprint = fingerprint
        self._block_size = block_size
        self._eos_token_ids = eos_token_ids
        self._listener = listener
        self._clock = clock
        self._steps = 0
        self._stalled = False
        self._chunks: Chunks = []

    @property
    def has_work(self) -> bool:
        """Whether `step` may have something to do.

        After a step that found nothing (all blocks are held, say) only a command changes that.
        """
        return self._scheduler.has_work and not self._stalled

    @property
    def cache_log(self) -> CacheLog:
        """What the prefix cache gains and loses, to be followed from any thread."""
        return self._scheduler.pool.log

    def load(self) -> EngineLoad:
        """A snapshot of what there is to do and of the blocks."""
        return EngineLoad(self._scheduler.load(), self._scheduler.pool.counts(), self._steps)

    def add(self, request: EngineRequest) -> None:
        """Queues a request."""
        self._stalled = False
        stop = frozenset(request.sampling.stop_token_ids)
        self._scheduler.add(
            seq.Sequence(
                key=request.key,
                tokens=[*request.prompt_ids, *request.output_ids],
                prompt_tokens=len(request.prompt_ids),
                sampling=request.sampling,
                end_token_ids=stop if request.sampling.ignore_eos else stop | self._eos_token_ids,
                work=request.work,
                chain=HashChain(self._fingerprint, self._block_size),
                urgency=request.urgency,
                tpot_limit_s=request.tpot_limit_s,
            )
        )

    def remove(self, key: str, *, unsettled: bool = False) -> None:
        """Ends a sequence in whatever state it is; idempotent.

        `unsettled`: bytes of a transfer may still move in its blocks. They are quarantined until
        `settle(key)`.
        """
        self._stalled = False
        sequence = self._scheduler.get(key)
        if sequence is not None:
            self._scheduler.remove(sequence, unsettled=unsettled)

    def settle(self, key: str) -> None:
        """Nothing moves any more in the blocks that `remove(key, unsettled=True)` left."""
        self._stalled = False
        self._scheduler.pool.settle(key)

    def loaded(self, key: str, first_token: int) -> list[Event]:
        """The KV of `key` has landed; decoding goes on after `first_token`.

        Returns an event only when that token already ends the generation.
        """
        self._stalled = False
        sequence = self._scheduler.get(key)
        if sequence is None or sequence.state is not seq.State.LOADING:
            return []
        reason = self._scheduler.loaded(sequence, first_token)
        if reason is None:
            return []
        return [Sampled(key, sequence.outputs - 1, SampledToken(first_token), reason, 0)]

    def step(self) -> list[Event]:
        """Computes one batch and returns what came of it."""
        return [*self.admit(), *self.compute()]

    def admit(self) -> list[Event]:
        """The first half of a step: decides what to compute, and returns who got blocks for it."""
        step = self._scheduler.schedule()
        self._chunks = step.chunks
        self._stalled = not step.chunks and not step.admitted
        fresh = (sequence for sequence in step.admitted if sequence.preemptions == 0)
        return [self._announce(sequence) for sequence in fresh]

    def compute(self) -> list[Event]:
        """The second half: computes what was decided and returns the sampled tokens."""
        chunks, self._chunks = self._chunks, []
        if not chunks:
            return []
        self._steps += 1
        began = self._clock()
        sampled = self._runner.run(chunks, self._reporter(chunks))
        self.step_log.write(step_work(chunks), self._clock() - began)
        events = (self._commit(*result) for result in zip(chunks, sampled, strict=True))
        return [event for event in events if event is not None]

    def check(self) -> None:
        """Raises `AssertionError` unless sequences and blocks agree."""
        self._scheduler.check()

    def _announce(self, sequence: seq.Sequence) -> Admitted:
        blocks = tuple(sequence.blocks)
        if self._listener is not None and sequence.work is seq.Work.PREFILL:
            self._listener.admitted(sequence.key, blocks, sequence.cached_tokens)
        return Admitted(sequence.key, blocks, sequence.cached_tokens)

    def _reporter(self, chunks: Chunks) -> LayersDone | None:
        """Tells the listener of every layer group; None when the batch hands nothing over."""
        listener = self._listener
        ends = [
            (chunk.sequence.key, chunk.sequence.computed + chunk.tokens)
            for chunk in chunks
            if chunk.sequence.work is seq.Work.PREFILL
        ]
        if listener is None or not ends:
            return None

        def report(layer_begin: int, layer_end: int) -> None:
            for key, token_end in ends:
                listener.computed(key, layer_begin, layer_end, token_end)

        return report

    def _commit(self, chunk: Chunk[seq.Sequence], token: SampledToken | None) -> Sampled | None:
        sequence = chunk.sequence
        reason = self._scheduler.commit(chunk, None if token is None else token.token_id)
        if token is None:
            return None
        index = sequence.outputs - 1
        return Sampled(sequence.key, index, token, reason, sequence.preemptions)
