"""A placement under load: the simulation of all of it, on the links that it would use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.latency.source import LatencySource
from pdserve.planner.load import lasting
from pdserve.planner.plan import Placement
from pdserve.planner.policies import Batching
from pdserve.planner.problem import Problem
from pdserve.planner.simulator.links import Links
from pdserve.planner.simulator.result import Floats, Result
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.topology import links_of
from pdserve.workload.operations import rotate
from pdserve.workload.workload import Workload

_LAYER_GROUPS = 6


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a placement showed at one rate: load and result of each of the problem's seeds."""

    rate: float
    loads: Sequence[Workload]
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
        self._deployment = deployment_of(
            placement, problem.sources, self.links, problem.mean_output
        )

    def serves(self, rate: float) -> bool:
        """Whether the target share of requests meets the SLOs at this rate, with every seed."""
        return all(self._meets(rate, seed) for seed in range(self.problem.effort.seeds))

    def goodput(self, guess: float, seed: int = 0) -> float:
        """The highest rate at which the target share meets the SLOs; `guess` is a first one."""
        return self.problem.effort.bisection.highest(lambda rate: self._meets(rate, seed), guess)

    def at(self, rate: float, seeds: int | None = None) -> Evaluation:
        """All that is seen at this rate, with so many seeds (default: the problem's)."""
        slo = self.problem.slo
        loads = [self._load(rate, seed) for seed in range(seeds or self.problem.effort.seeds)]
        results = [simulate(self._deployment, load, slo) for load in loads]
        return Evaluation(rate, loads, results, [result.attainment(slo) for result in results])

    def _meets(self, rate: float, seed: int) -> bool:
        slo = self.problem.slo
        load = self._load(rate, seed)
        return simulate(self._deployment, load, slo, stop_early=True).meets(slo)

    def _load(self, rate: float, seed: int) -> Workload:
        effort = self.problem.effort
        load = self.problem.sample(effort.plan_requests)
        if seed:
            load = rotate(load, seed / effort.seeds)
        return lasting(load, rate, len(load))


def deployment_of(
    placement: Placement,
    sources: Mapping[str, LatencySource],
    links: Links,
    output_tokens: float = 128.0,
) -> Deployment:
    """A placement as the simulator wants it; `sources` are by kind of GPU."""
    kv = next(iter(sources.values())).kv
    instances = [
        SimulatedInstance(
            role=each.role,
            cost=sources[each.gpu].instance(each.tp, each.pp),
            policy=Batching(sources[each.gpu].policy, each.max_batch_seqs).policy(
                placement.layout, each.max_batch_tokens
            ),
            group=each.group,
        )
        for each in placement.instances
    ]
    groups = min(_LAYER_GROUPS, kv.layers)
    return Deployment(instances, links, kv.bytes_per_token, groups, output_tokens)
