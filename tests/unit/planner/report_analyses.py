"""Small analyses to report on, each made once: published costs of OPT-13B on A100."""

import math
from dataclasses import replace
from functools import cache

from pdserve.latency.hardware import find_gpu
from pdserve.latency.profile import read_profile
from pdserve.planner.analysis import Analysis, analyse
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.goodput import Bisection
from pdserve.planner.problem import Effort, Problem
from pdserve.planner.search import search
from pdserve.planner.slo import Slo
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import IndependentLengths, LognormalLengths

PROFILE = replace(read_profile("opt-13b-a100-80g-distserve"), model="<script>alert(1)</script>")
A100 = find_gpu(PROFILE.gpu)
WORKLOAD = draw_workload(
    WorkloadSpec(300, IndependentLengths(LognormalLengths(700, 0.6), LognormalLengths(150, 0.6)))
)
EFFORT = Effort(200, 300, seeds=2, threads=2, bisection=Bisection(0.05))


def _analysis(node_gpus: int, slo: Slo, rate: float | None = None) -> Analysis:
    nodes = [Node(f"<b>node-{k}</b>", A100, node_gpus, 25e9, gpu_hour_price=1.5) for k in range(2)]
    problem = Problem({A100.name: PROFILE}, Cluster(nodes), WORKLOAD, slo, rate=rate, effort=EFFORT)
    return analyse(problem, search(problem), lambda *_: None)


@cache
def disaggregated() -> Analysis:
    """Stages apart on two nodes, and whatever that is better than.

    Which layout wins is the search's subject, and close here: the others are made a little worse.
    """
    made = _analysis(4, Slo(0.3, 0.03))
    problem, found = made.problem, {each.layout: each for each in made.search.found}
    best = found.pop("apart")
    others = [replace(each, goodput=0.8 * best.goodput) for each in found.values()]
    return analyse(problem, replace(made.search, found=[best, *others]), lambda *_: None)


@cache
def colocated() -> Analysis:
    """Loose SLOs: whatever interferes does not matter, and no TPOT is asked for."""
    return _analysis(1, Slo(5.0, math.inf))


@cache
def for_rate() -> Analysis:
    """As little as serves a rate."""
    return _analysis(4, Slo(0.4, 0.1), rate=4.0)
