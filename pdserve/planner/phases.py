"""What one instance of each phase can do by itself, for every parallelism.

DistServe's algorithm 1 (OSDI 2024, section 4.2) optimises the phases apart: prefill by its TTFT
alone, decode by its TPOT alone, each as if the other were no bottleneck.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shape of instance, and the goodput of one of them by itself, in requests per second."""

    shape: Shape
    goodput: float


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

    def judge(shape: Shape) -> Candidate:
        cost = problem.cost(shape.gpu, shape.tp, shape.pp)
        policy = problem.batching(shape.gpu).policy(layout, shape.max_batch_tokens)
        goodput = instance_goodput(problem, role, cost, policy)
        done()
        return Candidate(shape, goodput)

    judged = [each for each in executor.map(judge, jobs) if each.goodput > 0]
    return sorted(judged, key=lambda each: -each.goodput / each.shape.gpus)


def instance_goodput(problem: Problem, role: Role, cost: InstanceCost, policy: Policy) -> float:
    """The goodput of one instance whose other phase costs nothing; 0 where no rate meets."""
    workload = problem.sample(problem.effort.instance_requests)
    slo, seen, policy = problem.slo, workload, replace(policy, first_token_decoded=False)
    instances = [SimulatedInstance(role, cost, policy)]
    if role == "prefill":
        slo = replace(slo, tpot_s=math.inf)
        instances = [SimulatedInstance("both", cost, policy)]
        seen = replace(workload, output_tokens=np.ones_like(workload.output_tokens))
    elif role == "decode":
        slo = replace(slo, ttft_s=math.inf)
        instances.insert(0, SimulatedInstance("prefill", _AT_ONCE, _ALL_AT_ONCE))
    guess = _unloaded_rate(role, cost, workload, slo)
    if guess == 0:
        return 0.0
    deployment = Deployment(
        instances,
        separate_links(len(instances), math.inf),
        problem.kv_bytes,
        output_tokens=problem.mean_output,
    )

    def meets(rate: float) -> bool:
        return simulate(deployment, seen.at_rate(rate), slo, stop_early=True).meets(slo)

    return problem.effort.bisection.highest(meets, guess)


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
