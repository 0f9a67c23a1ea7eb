"""A placement under load: the simulation of all of it, on the links that it would use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.planner.plan import Placement
from pdserve.planner.problem import Problem
from pdserve.planner.simulator.links import Links
from pdserve.planner.simulator.result import Floats, Result
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.topology import links_of
from pdserve.workload.operations import repeat, rotate
from pdserve.workload.workload import Workload

_LAYER_GROUPS = 6
# A simulation covers at least so much time, or a large cluster would never fill up.
_LEAST_S = 60.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a placement showed at one rate: a result for each of the problem's seeds."""

    rate: float
    results: Sequence[Result]
    attainments: Sequence[float]

    @property
    def attainment(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.attainments))

    @property
    def spread(self) -> float:
        """Half of the range over the seeds."""
        return (max(self.attainments) - min(self.attainments)) / 2

    @property
    def ttft_s(self) -> Floats:
        """TTFT of all requests of all seeds."""
        return np.concatenate([result.ttft_s for result in self.results])

    @property
    def tpot_s(self) -> Floats:
        """TPOT of all requests of all seeds."""
        return np.concatenate([result.tpot_s for result in self.results])


class Bench:
    """Simulates one placement of a problem."""

    def __init__(self, problem: Problem, placement: Placement) -> None:
        self.problem = problem
        self.placement = placement
        self.links, self.link_names = links_of(placement, problem.cluster)
        self._deployment = deployment(problem, placement, self.links)

    def meets(self, rate: float) -> bool:
        """Whether the target share of requests meets the SLOs at this rate."""
        slo = self.problem.slo
        return simulate(self._deployment, self._load(rate, 0), slo, stop_early=True).meets(slo)

    def goodput(self, guess: float) -> float:
        """The highest rate that meets them; `guess` is where it is expected."""
        return self.problem.effort.bisection.highest(self.meets, guess)

    def at(self, rate: float, seeds: int | None = None) -> Evaluation:
        """All that is seen at this rate, with so many seeds (default: the problem's)."""
        results = [
            simulate(self._deployment, self._load(rate, seed), self.problem.slo)
            for seed in range(seeds or self.problem.effort.seeds)
        ]
        attained = [result.attainment(self.problem.slo) for result in results]
        return Evaluation(rate, results, attained)

    def _load(self, rate: float, seed: int) -> Workload:
        effort = self.problem.effort
        load = self.problem.sample(effort.plan_requests)
        if seed:
            load = rotate(load, seed / effort.seeds)
        enough = int(min(rate * _LEAST_S, effort.plan_requests))
        return (repeat(load, enough) if enough > len(load) else load).at_rate(rate)


def deployment(problem: Problem, placement: Placement, links: Links) -> Deployment:
    """A placement as the simulator wants it."""
    instances = [
        SimulatedInstance(
            role=each.role,
            cost=problem.cost(each.gpu, each.tp, each.pp),
            policy=problem.batching(each.gpu).policy(placement.layout, each.max_batch_tokens),
            group=each.group,
        )
        for each in placement.instances
    ]
    groups = min(_LAYER_GROUPS, problem.layers)
    return Deployment(instances, links, problem.kv_bytes, groups, problem.mean_output)
