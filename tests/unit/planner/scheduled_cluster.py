"""The services' own scheduler on a virtual clock: steps take what their costs say."""

import heapq
from dataclasses import dataclass

from pdserve.kv.blocks import BlockPool
from pdserve.kv.prefix import HashChain
from pdserve.latency.cost import InstanceCost
from pdserve.planner.simulator.policy import Policy
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import TokenBudget
from pdserve.scheduling.scheduler import Scheduler
from pdserve.scheduling.sequence import Sequence, State, Work

TOKEN = 7
LONG = 1 << 40


@dataclass
class Seen:
    """What a request saw."""

    first_s: float = float("nan")
    finished_s: float = float("nan")
    preemptions: int = 0


class Node:
    """One instance: `prefilling` are the keys that have not sampled since they were admitted."""

    def __init__(self, cost: InstanceCost, policy: Policy) -> None:
        size = policy.block_size
        # Without the prefix cache: a preempted sequence would find its own blocks in it.
        pool = BlockPool(cost.kv_tokens // size, prefix_cache=False)
        budget = TokenBudget(policy.max_batch_tokens, policy.max_batch_seqs)
        self.cost, self.size = cost, size
        self.scheduler = Scheduler(pool, size, budget, LONG)
        self.prefilling: set[str] = set()
        self.busy = False

    def sequence(self, key: int, prompt: int, output: int, work: Work) -> Sequence:
        return Sequence(
            key=str(key),
            tokens=[TOKEN] * prompt,
            prompt_tokens=prompt,
            sampling=SamplingParams(max_tokens=output),
            end_token_ids=frozenset(),
            work=work,
            chain=HashChain("", self.size),
        )

    def step_s(self, chunks) -> float:
        tokens = squares = batch = context = 0
        for chunk in chunks:
            past = chunk.sequence.computed
            if chunk.sequence.key in self.prefilling:
                tokens += chunk.tokens
                squares += (past + chunk.tokens) ** 2 - past**2
            else:
                batch += 1
                context += past + 1
        if not batch:
            return self.cost.prefill_s(tokens, squares)
        if not tokens:
            return self.cost.decode_s(batch, context)
        return self.cost.mixed_s(tokens, squares, batch, context)


class ScheduledCluster:
    """One colocated instance, or one that prefills and one that decodes, with infinite links."""

    def __init__(self, first: Node, decode: Node | None = None) -> None:
        self.first, self.decode = first, decode
        self.nodes = [first] if decode is None else [first, decode]
        self.now = 0.0
        self.events: list = []
        self.order = 0
        self.lengths: list[tuple[int, int]] = []
        self.seen: list[Seen] = []

    def run(self, requests: list[tuple[float, int, int]]) -> list[Seen]:
        """What requests of (arrival, prompt, output) see."""
        self.lengths = [(prompt, output) for _, prompt, output in requests]
        self.seen = [Seen() for _ in requests]
        for key, (arrival_s, *_) in enumerate(requests):
            self.at(arrival_s, self.arrive, key)
        while self.events:
            self.now, *_, action, subjects = heapq.heappop(self.events)
            action(*subjects)
        for node in self.nodes:
            node.scheduler.check()
            assert not node.scheduler.has_work
            assert node.scheduler.pool.available == node.scheduler.pool.num_blocks
        return self.seen

    def at(self, time, action, *subjects, late=0):
        """`late` puts it after whatever else happens then that is less late."""
        self.order += 1
        heapq.heappush(self.events, (time, late, self.order, action, subjects))

    def begin_soon(self, node):
        """Steps begin after everything else of their time; decode sees what prefill has begun."""
        self.at(self.now, self.begin, node, late=1 if node is self.first else 2)

    def arrive(self, key):
        work = Work.BOTH if self.decode is None else Work.PREFILL
        self.first.scheduler.add(self.first.sequence(key, *self.lengths[key], work))
        self.begin_soon(self.first)

    def bind(self, key):
        assert self.decode is not None
        self.decode.scheduler.add(self.decode.sequence(key, *self.lengths[key], Work.DECODE))
        self.begin_soon(self.decode)

    def begin(self, node):
        if node.busy or not node.scheduler.has_work:
            return
        step = node.scheduler.schedule()
        for sequence in step.admitted:
            if sequence.state is State.LOADING:
                self.at(self.now, self.hand_over, sequence.key)
                continue
            node.prefilling.add(sequence.key)
            if sequence.work is Work.PREFILL:
                self.at(self.now, self.bind, int(sequence.key))
        if step.chunks:
            node.busy = True
            self.at(self.now + node.step_s(step.chunks), self.end, node, step.chunks)

    def end(self, node, chunks):
        node.busy = False
        for chunk in chunks:
            sequence = chunk.sequence
            whole = chunk.tokens == sequence.uncomputed
            reason = node.scheduler.commit(chunk, TOKEN if whole else None)
            if whole:
                node.prefilling.discard(sequence.key)
                self.sampled(sequence, reason)
        self.begin_soon(node)

    def sampled(self, sequence, reason):
        seen = self.seen[int(sequence.key)]
        if sequence.outputs == 1:
            seen.first_s = self.now
        if reason is not None:
            seen.finished_s = self.now
            seen.preemptions = sequence.preemptions
        if sequence.work is not Work.PREFILL:
            return
        if reason is not None:
            self.keep(sequence)
        else:
            self.hand_over(sequence.key)

    def keep(self, sequence):
        """The first token was the last: both sides let go."""
        assert self.decode is not None
        self.first.scheduler.remove(sequence)
        bound = self.decode.scheduler.get(sequence.key)
        assert bound is not None
        self.decode.scheduler.remove(bound)
        self.begin_soon(self.decode)

    def hand_over(self, key):
        """KV moves at once, when it is computed and there is a place for it."""
        assert self.decode is not None
        source = self.first.scheduler.get(key)
        sink = self.decode.scheduler.get(key)
        if source is None or source.state is not State.HELD:
            return
        if sink is None or sink.state is not State.LOADING:
            return
        self.decode.scheduler.loaded(sink, TOKEN)
        self.first.scheduler.remove(source)
        self.begin_soon(self.decode)
        self.begin_soon(self.first)
