"""What the instances of each phase can do by themselves, for every parallelism.

DistServe's algorithm 1 (OSDI 2024, section 4.2) optimises the phases apart: prefill by its TTFT
alone, decode by its TPOT alone, each as if the other were no bottleneck. It simulates one instance;
here it is as many as a node's worth of GPUs, for several small ones bear a burst better than one of
them suggests, and would lose against a large one unjustly.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.planner.load import lasting
from pdserve.planner.plan import Layout, Role, Shape
from pdserve.planner.problem import Problem
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import DISTSERVE, Policy
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

_NOTHING = PrefillCost(0.0, 0.0, 0.0)
# Prefill of the sort that decode sees when it is judged alone: at once, and without end.
_AT_ONCE = InstanceCost(1, 1, _NOTHING, DecodeCost(0, 0, 0), DecodeCost(0, 0, 0), 1, 1 << 40)
_ALL_AT_ONCE = replace(DISTSERVE, first_token_decoded=False)
# Every shape is judged by a share of the requests first. All of them are for those that come near
# the best of their kind.
_ROUGHLY = 0.1
_POOL_GPUS = 8
_NEAR = 0.75


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shape of instance, and the goodput of one of several such, in requests per second."""

    shape: Shape
    goodput: float

    @property
    def per_gpu(self) -> float:
        """Goodput per GPU."""
        return self.goodput / self.shape.gpus


def judge_instances(
    problem: Problem, layout: Layout, role: Role, executor: Executor, done: Callable[[], None]
) -> Sequence[Candidate]:
    """Every shape for `role` that has a goodput, the best per GPU first.

    `done` is called after each one that was judged.
    """
    jobs = [
        Shape(role, kind, tp, pp, tokens, problem.max_batch_seqs)
        for kind in sorted(problem.cluster.kinds)
        for tp, pp in problem.parallelisms(kind)
        for tokens in problem.batching(kind).budgets(role, layout, problem.cost(kind, tp, pp))
    ]

    def alone(shape: Shape) -> "_Alone":
        cost = problem.cost(shape.gpu, shape.tp, shape.pp)
        policy = problem.batching(shape.gpu).policy(layout, shape.max_batch_tokens)
        return _Alone(problem, role, cost, policy)

    def roughly(shape: Shape) -> Candidate:
        return Candidate(shape, alone(shape).goodput(_ROUGHLY))

    def judge(rough: Candidate) -> Candidate:
        shape, goodput = rough.shape, rough.goodput
        if 0 < rough.per_gpu >= _NEAR * best[shape.gpu]:
            goodput = alone(shape).goodput(guess=goodput)
        done()
        return Candidate(shape, goodput)

    best: dict[str, float] = {}
    candidates = list(executor.map(roughly, jobs))
    for each in candidates:
        best[each.shape.gpu] = max(each.per_gpu, best.get(each.shape.gpu, 0.0))
    judged = [each for each in executor.map(judge, candidates) if each.goodput > 0]
    return sorted(judged, key=lambda each: -each.per_gpu)


class _Alone:
    """Instances of one shape whose other phase costs nothing."""

    def __init__(self, problem: Problem, role: Role, cost: InstanceCost, policy: Policy) -> None:
        self._problem, self._role, self._cost = problem, role, cost
        self._workload = problem.sample(problem.effort.instance_requests)
        self._slo, policy = problem.slo, replace(policy, first_token_decoded=False)
        self._count = max(1, min(_POOL_GPUS, problem.gpu_budget) // cost.gpus)
        instances = [SimulatedInstance(role, cost, policy)] * self._count
        if role == "prefill":
            self._slo = replace(self._slo, tpot_s=math.inf)
            instances = [SimulatedInstance("both", cost, policy)] * self._count
        elif role == "decode":
            self._slo = replace(self._slo, ttft_s=math.inf)
            instances.insert(0, SimulatedInstance("prefill", _AT_ONCE, _ALL_AT_ONCE))
        self._deployment = Deployment(
            instances,
            separate_links(len(instances), math.inf),
            problem.kv_bytes,
            output_tokens=problem.mean_output,
        )

    def goodput(self, share: float = 1.0, guess: float | None = None) -> float:
        """The goodput of each by this share of the requests; 0 where no rate meets the SLOs."""
        first = guess or _unloaded_rate(self._role, self._cost, self._workload, self._slo)
        if first == 0:
            return 0.0
        seen = self._workload
        if self._role == "prefill":
            seen = replace(seen, output_tokens=np.ones_like(seen.output_tokens))

        ceiling = _ceiling(self._role, self._cost, self._workload)

        def meets(rate: float) -> bool:
            if rate > ceiling:
                return False
            load = lasting(seen, rate * self._count, math.ceil(share * len(seen)))
            return simulate(self._deployment, load, self._slo, stop_early=True).meets(self._slo)

        return self._problem.effort.bisection.highest(meets, first)


def _ceiling(role: Role, cost: InstanceCost, workload: Workload) -> float:
    """A rate that no batch, however large, gets through.

    A short trace may be over before an overloaded instance has fallen behind.
    """
    prompts = workload.prompt_tokens.astype(float)
    prefill = cost.prefill
    prefill_s = prefill.per_token_s * prompts.mean() + prefill.per_square_s * (prompts**2).mean()
    output = float(workload.output_tokens.mean())
    context = float(prompts.mean())
    step_s = min(
        line.per_context_token_s * context + line.per_sequence_s
        for line in (cost.decode, cost.decode_large)
    )
    busy_s = (0.0 if role == "decode" else prefill_s) + (
        0.0 if role == "prefill" else step_s * output
    )
    return cost.pp / busy_s if busy_s > 0 else math.inf


def _unloaded_rate(role: Role, cost: InstanceCost, workload: Workload, slo: Slo) -> float:
    """A rate to begin with; 0 where not even an idle instance meets the SLO often enough."""
    prompts = workload.prompt_tokens
    alone_s = np.array([cost.prefill_s(int(tokens)) for tokens in prompts])
    step_s = cost.decode_s(1, float(prompts.mean()))
    if role != "decode" and np.mean(alone_s <= slo.ttft_s) < slo.attainment:
        return 0.0
    if role != "prefill" and step_s > slo.tpot_s * 2:
        return 0.0
    if role == "prefill":
        return 0.5 / float(alone_s.mean())
    # The batch that the KV holds, or half of what the TPOT allows, whichever is less.
    mean_output = float(workload.output_tokens.mean())
    mean_tokens = float(prompts.mean()) + mean_output
    batch = max(1.0, min(cost.kv_tokens / mean_tokens, 256.0))
    while batch > 1 and cost.decode_s(batch, batch * mean_tokens) > slo.tpot_s:
        batch /= 2
    return 0.5 * batch / (mean_output * cost.decode_s(batch, batch * mean_tokens))
