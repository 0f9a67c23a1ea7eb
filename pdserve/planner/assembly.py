"""How many instances of each shape: an integer program.

Every variable counts the instances of one shape (or units of several), a further one is the rate.
Each phase's goodputs must add up to the rate and each kind of GPU has only so many; then the rate
is maximised, or the GPUs (or their price) for a given rate are minimised. With one kind of GPU and
one shape a phase this is DistServe's `⌈R / goodput⌉`; with several kinds it decides which kind does
which phase.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

# Of plans with the same rate, the one with fewer instances: less to run, less to fail.
_INSTANCE_WEIGHT = 1e-6


@dataclass(frozen=True, slots=True)
class Option:
    """Something to have a number of: what it adds to each phase's rate, and its GPUs by kind.

    `room` is what it takes of the nodes' GPUs, with those that it leaves in a node for nobody.
    """

    rates: Mapping[str, float]
    gpus: Mapping[str, int]
    room: Mapping[str, float]
    price: float
    instances: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """GPUs of each kind, and of all together."""

    by_kind: Mapping[str, int]
    total: int


def most_goodput(options: Sequence[Option], limits: Limits) -> tuple[float, list[int]]:
    """The highest rate that all phases reach, and how many of each option; (0, []) where none."""
    costs = [_INSTANCE_WEIGHT * option.instances for option in options]
    solved = _solve(options, limits, rate_bounds=(0.0, np.inf), costs=costs, rate_cost=-1.0)
    return solved if solved and solved[0] > 0 else (0.0, [])


def least_cost(options: Sequence[Option], limits: Limits, rate: float) -> list[int]:
    """How many of each option serve `rate` for the least price, or GPUs; [] where none do."""
    priced = all(option.price > 0 for option in options)
    costs = [
        (option.price if priced else sum(option.gpus.values()))
        + _INSTANCE_WEIGHT * option.instances
        for option in options
    ]
    solved = _solve(options, limits, rate_bounds=(rate, rate), costs=costs, rate_cost=0.0)
    return solved[1] if solved else []


def _solve(
    options: Sequence[Option],
    limits: Limits,
    *,
    rate_bounds: tuple[float, float],
    costs: Sequence[float],
    rate_cost: float,
) -> tuple[float, list[int]] | None:
    """The rate and the counts with the least cost; None where there is no solution."""
    if not options:
        return None
    phases = sorted({phase for option in options for phase in option.rates})
    kinds = sorted(limits.by_kind)
    rows, low, high = [], [], []
    for phase in phases:
        rows.append([option.rates.get(phase, 0.0) for option in options] + [-1.0])
        low.append(0.0)
        high.append(np.inf)
    for kind in kinds:
        rows.append([float(option.room.get(kind, 0)) for option in options] + [0.0])
        low.append(0.0)
        high.append(float(limits.by_kind[kind]))
    rows.append([float(sum(option.gpus.values())) for option in options] + [0.0])
    low.append(0.0)
    high.append(float(limits.total))
    answer = milp(
        c=np.array([*costs, rate_cost]),
        integrality=np.array([1] * len(options) + [0]),
        bounds=Bounds(
            np.array([0.0] * len(options) + [rate_bounds[0]]),
            np.array([np.inf] * len(options) + [rate_bounds[1]]),
        ),
        constraints=LinearConstraint(np.array(rows), np.array(low), np.array(high)),
        options={"time_limit": 10.0, "mip_rel_gap": 1e-4},
    )
    if answer.x is None:
        return None
    return float(answer.x[-1]), [round(value) for value in answer.x[:-1]]
