"""Moves sequences between waiting, loading, running and held, and gives them blocks."""

import time
from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pdserve.kv.blocks import BlockPool
from pdserve.scheduling.batching import Chunk, TokenBudget
from pdserve.scheduling.load import PrefillWork, SchedulerLoad
from pdserve.scheduling.sequence import FinishReason, Sequence, State, Work
from pdserve.scheduling.waiting import WaitingQueue, by_place

# Share of the pool that admission leaves to sequences that already run, so that admitting one
# does not preempt another a moment later.
GROWTH_RESERVE = 0.01


@dataclass(frozen=True, slots=True)
class Step:
    """One step's work, and the sequences that got their blocks for it."""

    chunks: list[Chunk[Sequence]]
    admitted: list[Sequence]


class Scheduler:
    """Admits by urgency (`WaitingQueue`), preempts by recomputation when blocks run out.

    A waiting sequence is admitted when the blocks of all its present tokens are available; from
    then on a decoding sequence takes one block at a time. Leading blocks that the prefix cache
    holds are shared instead of computed. `clock` is the one that sequences are due by.
    """

    def __init__(
        self,
        pool: BlockPool,
        block_size: int,
        budget: TokenBudget,
        max_model_len: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self.max_model_len = max_model_len
        self._block_size = block_size
        self._budget = budget
        self._waiting = WaitingQueue[Sequence](clock)
        self._running: list[Sequence] = []  # by place, as is what waits
        self._loading: set[Sequence] = set()
        self._waiting_work = PrefillWork()
        self._tpot_limits: Counter[float] = Counter()
        self._by_key: dict[str, Sequence] = {}

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
        self._by_key[sequence.key] = sequence
        if sequence.tpot_limit_s:
            self._tpot_limits[sequence.tpot_limit_s] += 1
        self._waiting.arrive(sequence)
        self._count(sequence)

    def schedule(self) -> Step:
        """The next step: running sequences first, then as many waiting ones as fit."""
        self._grow()
        chunks = self._budget.fill(self._running)
        admitted = []
        left = self._budget.left(chunks)
        while self._waiting and self._fits(self._waiting.head(), left):
            sequence = self._waiting.pop()
            self._discount(sequence)
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
            self._loading.remove(sequence)
            self._run(sequence)
        return reason

    def remove(self, sequence: Sequence, *, unsettled: bool = False) -> None:
        """Forgets a sequence; its blocks are free, or quarantined when `unsettled`."""
        del self._by_key[sequence.key]
        if sequence.tpot_limit_s:
            self._tpot_limits -= Counter({sequence.tpot_limit_s: 1})  # those left at 0 go
        if sequence.state is State.WAITING:
            self._waiting.remove(sequence)
            self._discount(sequence)
        elif sequence.state is State.LOADING:
            self._loading.remove(sequence)
        elif sequence.state is State.RUNNING:
            self._running.remove(sequence)
        if unsettled:
            self.pool.quarantine(sequence.blocks, sequence.key)
        else:
            self.pool.release(sequence.blocks, sequence.key)
        sequence.blocks = []

    def load(self) -> SchedulerLoad:
        """How much there is to do; takes time for each running sequence, not for waiting ones."""
        work = self._waiting_work.copy()
        context = decoding = 0
        for sequence in self._running:
            context += sequence.computed
            decoding += sequence.work is not Work.PREFILL
            if sequence.uncomputed > 1:
                work.add(sequence.urgency.priority, sequence.computed, sequence.uncomputed)
        waiting, loading, running = len(self._waiting), len(self._loading), len(self._running)
        queued = work.queued()
        return SchedulerLoad(
            waiting=waiting,
            loading=loading,
            running=running,
            held=len(self._by_key) - waiting - loading - running,
            decoding=decoding + loading,
            waiting_tokens=sum(each.tokens for each in queued),
            context_tokens=context,
            queued=queued,
            tpot_limit_s=min(self._tpot_limits, default=0.0),
        )

    def check(self) -> None:
        """Raises `AssertionError` unless sequences and blocks agree."""
        self.pool.check()
        owned = {block for sequence in self._by_key.values() for block in sequence.blocks}
        assert len(owned) == self.pool.counts().active, "a block has an owner that is gone"

    def _fits(self, sequence: Sequence, left: int) -> bool:
        occupied = len(self._running) + len(self._loading)
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
            self._loading.add(sequence)
        else:
            self._run(sequence)

    def _run(self, sequence: Sequence) -> None:
        sequence.state = State.RUNNING
        insort(self._running, sequence, key=by_place)

    def _count(self, sequence: Sequence) -> None:
        """Counts what a waiting sequence has to compute here: nothing if its KV is to be pulled."""
        if sequence.work is not Work.DECODE:
            self._waiting_work.add(sequence.urgency.priority, 0, len(sequence.tokens))

    def _discount(self, sequence: Sequence) -> None:
        if sequence.work is not Work.DECODE:
            self._waiting_work.remove(sequence.urgency.priority, 0, len(sequence.tokens))

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
        """Gives every decoding sequence the slot of its next token, in the order of places."""
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
        self._waiting.put_back(sequence)
        self._count(sequence)
