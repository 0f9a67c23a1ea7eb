"""Figures that the report derives from an analysis, for whichever form it takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.planner.analysis import Analysis
from pdserve.planner.phases import Candidate
from pdserve.planner.plan import Layout, Role, Shape
from pdserve.planner.problem import Problem
from pdserve.planner.search import Found
from pdserve.planner.simulator.result import PERCENTILES, Floats

# A plan that is this far below what its instances promise has lost it between them.
_LOST = 0.93

ROLES: tuple[Role, ...] = ("prefill", "decode", "both")


@dataclass(frozen=True, slots=True)
class PhaseCapacity:
    """What a plan's instances of one role serve if the other costs nothing, in requests per second.

    `parts` has the count of each shape and the goodput of one of them, NaN where none was judged.
    """

    role: Role
    parts: tuple[tuple[Shape, int, float], ...]

    @property
    def instances(self) -> int:
        """How many instances there are."""
        return sum(count for _, count, _ in self.parts)

    @property
    def gpus(self) -> int:
        """How many GPUs they take."""
        return sum(shape.gpus * count for shape, count, _ in self.parts)

    @property
    def goodput(self) -> float:
        """The sum of their goodputs."""
        return sum(count * goodput for _, count, goodput in self.parts)


def is_colocated(found: Found) -> bool:
    """Whether its instances do both phases."""
    return found.layout.startswith("colocated")


def candidates(analysis: Analysis, role: Role, layout: Layout) -> Sequence[Candidate]:
    """The judged shapes for a role; those of colocated instances hang on the layout."""
    return analysis.search.instances.get(layout if role == "both" else role, ())


def capacities(analysis: Analysis, found: Found) -> list[PhaseCapacity]:
    """What the phases of a plan serve, each if the other cost nothing."""
    shapes = found.placement.shapes()
    result = []
    for role in ROLES:
        known = {each.shape: each.goodput for each in candidates(analysis, role, found.layout)}
        parts = tuple(
            (shape, count, known.get(shape, math.nan))
            for shape, count in sorted(
                shapes.items(), key=lambda item: (-item[0].gpus * item[1], str(item[0]))
            )
            if shape.role == role
        )
        if parts:
            result.append(PhaseCapacity(role, parts))
    return result


def promised(analysis: Analysis, found: Found) -> float:
    """What a plan would serve if its instances were no better and no worse than by themselves."""
    return min((phase.goodput for phase in capacities(analysis, found)), default=math.nan)


def lost_on_the_way(analysis: Analysis, found: Found) -> bool:
    """Whether a disaggregated plan serves clearly less than its instances promise."""
    return not is_colocated(found) and found.goodput < promised(analysis, found) * _LOST


def best_per_gpu(judged: Sequence[Candidate]) -> float:
    """The most goodput per GPU of any shape; 0 where none meets its SLO."""
    return max((each.per_gpu for each in judged), default=0.0)


def ideal_per_gpu(analysis: Analysis) -> float:
    """Goodput per GPU if GPUs could be divided between the phases in any ratio, and KV were free.

    With `p` and `d` requests per second and GPU by themselves, a request takes `1 / p + 1 / d` GPU
    seconds (what DistServe's algorithm 1 balances; OSDI 2024, section 4.2).
    """
    instances = analysis.search.instances
    p, d = best_per_gpu(instances.get("prefill", ())), best_per_gpu(instances.get("decode", ()))
    return 1 / (1 / p + 1 / d) if p and d else 0.0


def colocated_per_gpu(analysis: Analysis) -> float:
    """The most goodput per GPU of any single colocated instance; 0 where there is none."""
    judged = analysis.search.instances
    return max(best_per_gpu(each) for key, each in judged.items() if key.startswith("colocated"))


def expense(found: Found) -> float:
    """What a plan for a given rate is to have little of: its price, or its GPUs without prices."""
    return found.price or found.placement.gpus


def advantage(problem: Problem, better: Found, other: Found) -> float:
    """How many times better a plan is: in goodput, or in expense where a rate is given."""
    if problem.rate is None:
        return better.goodput / other.goodput if other.goodput else math.inf
    return expense(other) / expense(better)


def near_runner_up(analysis: Analysis) -> bool:
    """Whether the runner-up is no worse than chance and the bisection's tolerance explain."""
    problem, best, other = analysis.problem, analysis.best, analysis.runner_up
    if other is None:
        return False
    if problem.rate is not None:
        return expense(other) <= expense(best)
    least = min(analysis.goodput_range)
    return other.goodput * (1 + problem.effort.bisection.tolerance) >= least


def mean_kv_bytes(problem: Problem) -> float:
    """KV of a prompt of mean length."""
    return float(problem.workload.prompt_tokens.mean()) * problem.kv_bytes


def moved_bytes_per_s(analysis: Analysis) -> float:
    """KV that the plan moves from prefill to decode."""
    return float(analysis.flows.sum())


def million_tokens_price(problem: Problem, found: Found) -> float:
    """Price of a million output tokens at the asked rate or the plan's own; 0 without prices."""
    rate = problem.rate or found.goodput
    return found.price / (rate * problem.mean_output * 3600) * 1e6 if rate else 0.0


def percentiles(seconds: Floats) -> dict[int, float]:
    """p50, p90 and p99 in seconds of the times that are known; NaN where none is."""
    known = seconds[np.isfinite(seconds)]
    if not len(known):
        return dict.fromkeys(PERCENTILES, math.nan)
    values = np.percentile(known, PERCENTILES)
    return {p: float(value) for p, value in zip(PERCENTILES, values, strict=True)}
