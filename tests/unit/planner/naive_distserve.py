"""DistServe's own simulation, done slowly: every stage of every pass is an event.

It follows the description that comes with DistServe's reference figures, and shares nothing with
`pdserve.planner.simulator` but the formulas of `pdserve.latency.cost`. Requests are objects, queues
are lists, and a pass goes through one pipeline stage at a time.
"""

import heapq
from dataclasses import dataclass, field

from pdserve.latency.cost import DecodeCost, InstanceCost

DECODE_CONTEXT = 50_000


@dataclass(eq=False)
class Job:
    """A request; `context` tokens have KV and `left` decode steps are to come."""

    arrival_s: float
    prompt: int
    output: int
    context: int = 0
    left: int = 0
    first_s: float = float("nan")
    finished_s: float = float("nan")

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        return (self.finished_s - self.first_s) / self.output


@dataclass(eq=False)
class Stage:
    """A pipeline stage: prompts, decoding sequences, and passes from the stage before."""

    first: bool
    busy: bool = False
    prompts: list[Job] = field(default_factory=list)
    passes: list[tuple[bool, list[Job]]] = field(default_factory=list)
    decoding: list[Job] = field(default_factory=list)


class NaiveDistServe:
    """One prefill and one decode instance, or one that does both where `decode` is None.

    In DistServe's simulator a later stage takes all decoding sequences that wait for it as one
    pass, and prompts before them. Unless `merge`, passes stay what they are, in their order.
    """

    def __init__(
        self, prefill: InstanceCost, decode: InstanceCost | None, *, merge: bool = True
    ) -> None:
        self.merge = merge
        self.cost = {"prefill": prefill, "decode": decode or prefill}
        self.prefill = [Stage(k == 0) for k in range(prefill.pp)]
        self.decode = self.prefill if decode is None else [Stage(k == 0) for k in range(decode.pp)]
        self.now = 0.0
        self.events: list = []
        self.order = 0

    def run(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            self.at(job.arrival_s, self.arrive, job)
        while self.events:
            self.now, *_, action, subjects = heapq.heappop(self.events)
            action(*subjects)
        return jobs

    def at(self, time, action, *subjects, late=False):
        """`late`: after everything else of that time."""
        self.order += 1
        heapq.heappush(self.events, (time, late, self.order, action, subjects))

    def arrive(self, job):
        self.prefill[0].prompts.append(job)
        self.at(self.now, self.begin, self.prefill, 0, late=True)

    def begin(self, stages, k):
        """The stage takes its next work, if it is free: prompts before decoding sequences."""
        stage = stages[k]
        if stage.busy:
            return
        if stage.passes:
            prompts, batch = stage.passes.pop(0)
        elif stage.prompts:
            prompts, batch = True, self.prompt_batch(stage)
        elif stage.decoding:
            prompts, batch = False, self.decode_batch(stage)
        else:
            return
        stage.busy = True
        if prompts:
            self.at(self.now + self.prefill_s(stage, batch), self.end_prefill, stages, k, batch)
        else:
            self.at(self.now + self.decode_s(stage, batch), self.end_decode, stages, k, batch)

    def prompt_batch(self, stage):
        batch, tokens = [], 0
        while stage.prompts and (
            not batch or tokens + stage.prompts[0].prompt <= self.cost["prefill"].kv_tokens
        ):
            batch.append(stage.prompts.pop(0))
            tokens += batch[-1].prompt
        return batch

    def decode_batch(self, stage):
        batch, context = [], 0
        while stage.decoding and (
            not batch or context + stage.decoding[0].context + 1 <= DECODE_CONTEXT
        ):
            batch.append(stage.decoding.pop(0))
            context += batch[-1].context + 1
        return batch

    def prefill_s(self, stage, batch):
        cost, tokens = self.cost["prefill"], sum(job.prompt for job in batch)
        line = cost.prefill
        squares = sum(job.prompt**2 for job in batch)
        seconds = line.base_s + line.per_token_s * tokens + line.per_square_s * squares
        return seconds / cost.pp + cost.prefill_stage_s + dispatch_s(stage, cost, tokens)

    def decode_s(self, stage, batch):
        cost, context = self.cost["decode"], sum(job.context + 1 for job in batch)
        line: DecodeCost = cost.decode if len(batch) < cost.large_from else cost.decode_large
        seconds = (
            line.base_s + line.per_context_token_s * context + line.per_sequence_s * len(batch)
        )
        return seconds / cost.pp + dispatch_s(stage, cost, context)

    def end_prefill(self, stages, k, batch):
        stages[k].busy = False
        if k + 1 < len(stages):
            stages[k + 1].passes.append((True, batch))
            self.at(self.now, self.begin, stages, k + 1, late=True)
        else:
            for job in batch:
                job.first_s, job.context, job.left = self.now, job.prompt, job.output
            self.decode[0].decoding += batch
            self.at(self.now, self.begin, self.decode, 0, late=True)
        self.at(self.now, self.begin, stages, k, late=True)

    def end_decode(self, stages, k, batch):
        stages[k].busy = False
        behind = (k + 1) % len(stages)
        if behind == 0:
            for job in batch:
                job.context += 1
                job.left -= 1
                if job.left == 0:
                    job.finished_s = self.now
        if behind and not self.merge:
            stages[behind].passes.append((False, batch))
        else:
            stages[behind].decoding += [job for job in batch if job.left]
        self.at(self.now, self.begin, stages, behind, late=True)
        self.at(self.now, self.begin, stages, k, late=True)


def dispatch_s(stage, cost, tokens):
    return cost.dispatch.base_s + cost.dispatch.per_token_s * tokens if stage.first else 0.0
