"""Moves sequences between waiting, loading, running and held, and gives them blocks."""

from bisect import insort
from collections import deque
from dataclasses import dataclass

from pdserve.kv.blocks import BlockPool
from pdserve.scheduling.batching import Chunk, TokenBudget
from pdserve.scheduling.sequence import FinishReason, Sequence, State, Work

# Share of the pool that admission leaves to sequences that already run, so that admitting one
# does not preempt another a moment later.
GROWTH_RESERVE = 0.01


@dataclass(frozen=True, slots=True)
class Step:
    """One step's work, and the sequences that got their blocks for it."""

    chunks: list[Chunk[Sequence]]
    admitted: list[Sequence]


@dataclass(frozen=True, slots=True)
class SchedulerLoad:
    """How much there is to do."""

    waiting: int = 0
    loading: int = 0
    running: int = 0
    held: int = 0
    waiting_tokens: int = 0
    context_tokens: int = 0


class Scheduler:
    """First come, first served, with preemption by recomputation when blocks run out.

    A waiting sequence is admitted when the blocks of all its present tokens are available; from
    then on a decoding sequence takes one block at a time. Leading blocks that the prefix cache
    holds are shared instead of computed.
    """

    def __init__(
        self, pool: BlockPool, block_size: int, budget: TokenBudget, max_model_len: int
    ) -> None:
        self.pool = pool
        self.max_model_len = max_model_len
        self._block_size = block_size
        self._budget = budget
        self._waiting: deque[Sequence] = deque()  # by arrival, as is _running
        self._running: list[Sequence] = []
        self._by_key: dict[str, Sequence] = {}
        self._arrivals = 0

    @property
    def has_work(self) -> bool:
        """Whether `schedule` may have something to do."""
        return bool(self._waiting or self._running)

    def get(self, key: str) -> Sequence | None:
        """The live sequence `key`."""
        return self._by_key.get(key)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; `ValueError` when its key is taken."""
        if sequence.key in self._by_key:
            raise ValueError(f"sequence {sequence.key} exists")
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self._by_key[sequence.key] = sequence
        self._waiting.append(sequence)

    def schedule(self) -> Step:
        """The next step: running sequences first, then as many waiting ones as fit."""
        self._grow()
        chunks = self._budget.fill(self._running)
        admitted = []
        left = self._budget.left(chunks)
        while self._waiting and self._fits(self._waiting[0], left):
            sequence = self._waiting.popleft()
            self._admit(sequence)
            admitted.append(sequence)
            if sequence.state is State.RUNNING:
                chunks.append(Chunk(sequence, min(sequence.uncomputed, left)))
                left -= chunks[-1].tokens
        return Step(chunks, admitted)

    def commit(self, chunk: Chunk[Sequence], sampled: int | None) -> FinishReason | None:
        """Records that a chunk's KV is computed and, at the end of the tokens, what was sampled.

        Returns why the sequence finished, if it did; it is gone then, unless its work here is
        prefill: its KV may be on its way by now, so that it is held until it is removed.
        """
        sequence = chunk.sequence
        sequence.computed += chunk.tokens
        self._register(sequence)
        if sampled is None:
            return None
        sequence.tokens.append(sampled)
        reason = sequence.finish_reason(self.max_model_len)
        if sequence.work is Work.PREFILL:
            sequence.state = State.HELD
            self._running.remove(sequence)
        elif reason is not None:
            self.remove(sequence)
        return reason

    def loaded(self, sequence: Sequence, first_token: int) -> FinishReason | None:
        """The KV of a loading sequence has landed; it decodes from `first_token` on."""
        sequence.computed = len(sequence.tokens)
        self._register(sequence)
        sequence.tokens.append(first_token)
        reason = sequence.finish_reason(self.max_model_len)
        if reason is not None:
            self.remove(sequence)
        else:
            self._run(sequence)
        return reason

    def remove(self, sequence: Sequence, *, unsettled: bool = False) -> None:
        """Forgets a sequence; its blocks are free, or quarantined when `unsettled`."""
        del self._by_key[sequence.key]
        if sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        elif sequence.state is State.RUNNING:
            self._running.remove(sequence)
        if unsettled:
            self.pool.quarantine(sequence.blocks, sequence.key)
        else:
            self.pool.release(sequence.blocks, sequence.key)
        sequence.blocks = []

    def load(self) -> SchedulerLoad:
        """How much there is to do."""
        states = [sequence.state for sequence in self._by_key.values()]
        return SchedulerLoad(
            waiting=states.count(State.WAITING),
            loading=states.count(State.LOADING),
            running=states.count(State.RUNNING),
            held=states.count(State.HELD),
            waiting_tokens=sum(
                sequence.uncomputed
                for sequence in self._by_key.values()
                if sequence.state is State.WAITING
                or (sequence.state is State.RUNNING and sequence.uncomputed > 1)
            ),
            context_tokens=sum(sequence.computed for sequence in self._running),
        )

    def check(self) -> None:
        """Raises `AssertionError` unless sequences and blocks agree."""
        self.pool.check()
        owned = {block for sequence in self._by_key.values() for block in sequence.blocks}
        assert len(owned) == self.pool.counts().active, "a block has an owner that is gone"

    def _fits(self, sequence: Sequence, left: int) -> bool:
        occupied = len(self._running) + self._loading()
        if occupied >= self._budget.max_seqs:
            return False
        if sequence.work is not Work.DECODE and left <= 0:
            return False
        reserve = int(self.pool.num_blocks * GROWTH_RESERVE) if occupied else 0
        shared = self._cached_prefix(sequence)
        needed = self.pool.needed(self._blocks_for(sequence), shared)
        return needed + reserve <= self.pool.available

    def _admit(self, sequence: Sequence) -> None:
        shared = self._cached_prefix(sequence)
        self.pool.share(shared, sequence.key)
        fresh = self.pool.allocate(self._blocks_for(sequence) - len(shared), sequence.key)
        sequence.blocks = shared + fresh
        sequence.computed = len(shared) * self._block_size
        sequence.registered = len(shared)
        sequence.cached_tokens = sequence.computed
        if sequence.work is Work.DECODE:
            sequence.state = State.LOADING
        else:
            self._run(sequence)

    def _run(self, sequence: Sequence) -> None:
        sequence.state = State.RUNNING
        insort(self._running, sequence, key=_arrival)

    def _loading(self) -> int:
        return sum(1 for sequence in self._by_key.values() if sequence.state is State.LOADING)

    def _blocks_for(self, sequence: Sequence) -> int:
        # A decode instance also needs the slot of the first token, which comes with the KV.
        tokens = len(sequence.tokens) + (1 if sequence.work is Work.DECODE else 0)
        return -(-tokens // self._block_size)

    def _cached_prefix(self, sequence: Sequence) -> list[int]:
        # The last token is always computed here: its logits are wanted, not only its KV.
        usable = len(sequence.tokens) - (0 if sequence.work is Work.DECODE else 1)
        return self.pool.match(sequence.chain.upto(sequence.tokens, usable))

    def _register(self, sequence: Sequence) -> None:
        hashes = sequence.chain.upto(sequence.tokens, sequence.computed)
        for index in range(sequence.registered, len(hashes)):
            self.pool.register(sequence.blocks[index], hashes[index])
        sequence.registered = len(hashes)

    def _grow(self) -> None:
        """Gives every decoding sequence the slot of its next token, oldest first."""
        for sequence in list(self._running):
            while self._lacks_block(sequence):
                if self.pool.available:
                    sequence.blocks += self.pool.allocate(1, sequence.key)
                else:
                    self._preempt(self._running[-1])

    def _lacks_block(self, sequence: Sequence) -> bool:
        capacity = len(sequence.blocks) * self._block_size
        return sequence.state is State.RUNNING and capacity < len(sequence.tokens)

    def _preempt(self, sequence: Sequence) -> None:
        """Takes a sequence's blocks; it will be computed again from its tokens."""
        self._running.remove(sequence)
        self.pool.release(sequence.blocks, sequence.key)
        sequence.blocks = []
        sequence.computed = sequence.registered = 0
        sequence.state = State.WAITING
        sequence.preemptions += 1
        if sequence.work is Work.DECODE:
            sequence.work = Work.BOTH  # its source has let go of the KV
        insort(self._waiting, sequence, key=_arrival)


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
