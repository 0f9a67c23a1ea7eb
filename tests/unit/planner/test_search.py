"""Plans of small clusters, with the published costs of OPT-13B on A100."""

import math
from dataclasses import replace

import pytest

from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.latency.profile import read_profile
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.evaluation import Bench
from pdserve.planner.problem import Effort, Problem
from pdserve.planner.search import Search, search
from pdserve.planner.slo import Slo
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import IndependentLengths, LognormalLengths

PROFILE = read_profile("opt-13b-a100-80g-distserve")
A100 = find_gpu(PROFILE.gpu)
WORKLOAD = draw_workload(
    WorkloadSpec(600, IndependentLengths(LognormalLengths(700, 0.6), LognormalLengths(150, 0.6)))
)
EFFORT = Effort(instance_requests=400, plan_requests=600, seeds=2, threads=2)


def problem(nodes: int = 1, node_gpus: int = 8, gbps: float = 200.0, **changes: object) -> Problem:
    cluster = Cluster([Node(f"node-{k}", A100, node_gpus, gbps / 8 * 1e9) for k in range(nodes)])
    slo = Slo(0.4, 0.1)
    plain = Problem({A100.name: PROFILE}, cluster, WORKLOAD, slo, effort=EFFORT)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def eight() -> Search:
    return search(problem())


def test_every_layout_is_judged(eight: Search) -> None:
    layouts = {found.layout for found in eight.found} | set(eight.absent)
    assert layouts == {"apart", "paired", "colocated-chunked", "colocated-whole"}


def test_a_plan_reaches_the_goodput_that_it_is_said_to_have(eight: Search) -> None:
    for found in eight.found:
        assert found.placement.gpus <= 8
        assert Bench(problem(), found.placement).at(found.goodput, seeds=1).attainment >= 0.9


def test_the_best_plan_is_first(eight: Search) -> None:
    goodputs = [found.goodput for found in eight.found]
    assert goodputs == sorted(goodputs, reverse=True)


def test_the_same_problem_has_the_same_plan(eight: Search) -> None:
    assert search(problem()) == eight


def test_a_rate_is_served_with_as_few_gpus_as_the_search_finds(eight: Search) -> None:
    rate = 0.4 * eight.found[0].goodput
    served = search(problem(rate=rate)).found
    assert all(found.goodput >= rate for found in served)
    assert served[0].placement.gpus == min(found.placement.gpus for found in served) < 8


def test_gpus_are_a_budget() -> None:
    best = search(problem(nodes=2, node_gpus=2)).found[0]
    half = search(problem(nodes=2, node_gpus=2, gpus=2)).found
    assert all(found.placement.gpus <= 2 for found in half)
    assert half[0].goodput < best.goodput


def test_instances_have_no_more_ranks_than_they_may() -> None:
    every = problem().parallelisms(A100.name)
    assert {tp for tp, _ in every} > {1, 2}
    assert problem(max_tp=1, max_pp=1).parallelisms(A100.name) == [(1, 1)]
    assert problem(max_tp=2).parallelisms(A100.name) == [each for each in every if each[0] <= 2]


def test_one_gpu_cannot_be_divided() -> None:
    result = search(problem(node_gpus=1, slo=Slo(2.0, 0.2)))
    assert result.found[0].layout.startswith("colocated")
    assert set(result.absent) >= {"apart", "paired"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"slo": Slo(0.01, 0.1)}, "the TTFT SLO cannot be met: an idle instance"),
        ({"slo": Slo(0.4, 0.001)}, "the TPOT SLO cannot be met: an instance"),
        ({"rate": 1000.0}, "no plan serves 1000 requests/s on 8 GPUs"),
        ({"gpus": 9}, "gpus is 9; it must lie in [1, 8]"),
        ({"rate": 0.0}, "rate is 0.0; it must be above 0"),
        ({"rate": math.nan}, "rate is nan; it must be above 0"),
        ({"sources": {}}, "there are no costs for A100"),
    ],
)
def test_the_impossible_is_told_with_what_makes_it_so(
    changes: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        search(problem(**changes))
    assert text in str(caught.value)


def test_a_model_that_fits_nowhere_is_told() -> None:
    big = read_profile("opt-66b-a100-80g-distserve")
    with pytest.raises(ConfigError, match="fits no instance"):
        search(problem(node_gpus=1, sources={A100.name: big}))
