"""Units of paired stages: DistServe's algorithm 2 for slow networks (OSDI 2024, section 4.2).

A unit takes `pp` nodes. On each of them is the same pipeline stage of some prefill and some decode
instances, so that KV never leaves its node. What is sought is how to divide a node's GPUs between
the phases.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import product

from pdserve.planner.cluster import Cluster
from pdserve.planner.evaluation import Bench
from pdserve.planner.phases import Candidate
from pdserve.planner.placement import Placer
from pdserve.planner.plan import Placement, Shape
from pdserve.planner.problem import Problem

_GROUP = 1


@dataclass(frozen=True, slots=True)
class Unit:
    """Instances whose stages share nodes, and the goodput of all of them together.

    `room` is how many GPUs of its nodes it takes, its share of those included that are left over.
    """

    shapes: tuple[Shape, ...]
    room: float
    goodput: float


@dataclass(frozen=True, slots=True)
class _Division:
    """So many instances of both shapes; `bound` is the goodput that they cannot exceed."""

    prefill: Candidate
    decode: Candidate
    prefills: int
    decodes: int
    node_gpus: int

    @property
    def room(self) -> float:
        width = self.prefills * self.prefill.shape.tp + self.decodes * self.decode.shape.tp
        return self.prefill.shape.pp * self.node_gpus / (self.node_gpus // width)

    @property
    def bound(self) -> float:
        return min(self.prefills * self.prefill.goodput, self.decodes * self.decode.goodput)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (self.prefill.shape,) * self.prefills + (self.decode.shape,) * self.decodes

    @property
    def gpus(self) -> int:
        return sum(shape.gpus for shape in self.shapes)


def judge_units(
    problem: Problem,
    prefill: Sequence[Candidate],
    decode: Sequence[Candidate],
    executor: Executor,
    done: Callable[[], None],
) -> list[Unit]:
    """The units that may be part of the best plan, the best for its room first.

    A phase's goodput by itself bounds that of a unit: those whose bound is below the best unit so
    far are not simulated.
    """
    units: list[Unit] = []
    for kind in sorted(problem.cluster.kinds):
        divisions = sorted(
            _divisions(problem, kind, prefill, decode), key=lambda each: -each.bound / each.room
        )
        units += _best(problem, divisions, executor, done)
    return sorted(units, key=lambda unit: -unit.goodput / unit.room)


def _divisions(
    problem: Problem, kind: str, prefill: Sequence[Candidate], decode: Sequence[Candidate]
) -> list[_Division]:
    nodes = problem.cluster.nodes_of(kind)
    largest = max(node.gpus for node in nodes)
    found = []
    for p, d in product(prefill, decode):
        if p.shape.gpu != kind or d.shape.gpu != kind or p.shape.pp != d.shape.pp:
            continue
        if p.shape.pp > len(nodes):
            continue
        for prefills in range(1, largest // p.shape.tp + 1):
            for decodes in range(1, (largest - prefills * p.shape.tp) // d.shape.tp + 1):
                division = _Division(p, d, prefills, decodes, largest)
                if division.gpus <= problem.gpu_budget:
                    found.append(division)
    return found


def _best(
    problem: Problem,
    divisions: Sequence[_Division],
    executor: Executor,
    done: Callable[[], None],
) -> list[Unit]:
    """Simulates divisions, the most promising first, until none can be better than the best."""

    def judge(division: _Division) -> Unit:
        bench = Bench(_of_instances(problem), _alone(problem, division))
        unit = Unit(division.shapes, division.room, bench.goodput(division.bound))
        done()
        return unit

    units: list[Unit] = []
    at_once = max(1, problem.effort.threads)
    for begin in range(0, len(divisions), at_once):
        best = max((unit.goodput / unit.room for unit in units), default=0.0)
        promising = [
            each for each in divisions[begin : begin + at_once] if each.bound / each.room > best
        ]
        if not promising:
            break
        units += [unit for unit in executor.map(judge, promising) if unit.goodput > 0]
    return units


def _of_instances(problem: Problem) -> Problem:
    """The problem with as many requests as single instances are judged by."""
    effort = problem.effort
    return replace(problem, effort=replace(effort, plan_requests=effort.instance_requests))


def _alone(problem: Problem, division: _Division) -> Placement:
    """One unit on nodes that have nothing else to do."""
    nodes = sorted(problem.cluster.nodes_of(division.prefill.shape.gpu), key=lambda n: -n.gpus)
    placer = Placer(Cluster(nodes[: division.prefill.shape.pp]))
    placer.unit(division.shapes, _GROUP)
    return placer.placement("paired")
