"""From observed steps to the costs of an instance, and how well these predict the steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.latency.cost import InstanceCost
from pdserve.latency.fit import fit_decode, fit_prefill
from pdserve.profiling.measure import Measurement, Observation
from pdserve.profiling.shape import Kind, StepShape


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors |predicted − observed| / observed over shapes, and how many steps they saw.

    `bias` is the median of the errors with their sign: above 0 where predictions are too long.
    """

    median: float
    p90: float
    maximum: float
    bias: float
    shapes: int
    steps: int


@dataclass(frozen=True, slots=True)
class FittedCosts:
    """The costs at TP 1 and PP 1, and their errors by kind of step."""

    cost: InstanceCost
    errors: Mapping[Kind, Errors]


def fit_costs(measurement: Measurement, kv_tokens: int) -> FittedCosts:
    """Costs that fit the median step of each shape; mixed steps test them and are not fitted to.

    Raises `ConfigError` where there are fewer than three prefill or decode shapes.
    """
    prefills, decodes = measurement.of(Kind.PREFILL), measurement.of(Kind.DECODE)
    prefill, _ = fit_prefill(
        [each.shape.tokens for each in prefills],
        [each.shape.squares for each in prefills],
        [each.median_s for each in prefills],
    )
    small, large, large_from, _ = fit_decode(
        [each.shape.batch for each in decodes],
        [each.shape.context for each in decodes],
        [each.median_s for each in decodes],
    )
    cost = InstanceCost(
        tp=1,
        pp=1,
        prefill=prefill,
        decode=small,
        decode_large=large,
        large_from=large_from,
        kv_tokens=kv_tokens,
    )
    predict = _predictors(cost)
    errors = {kind: _errors(seen, predict[kind]) for kind in Kind if (seen := measurement.of(kind))}
    return FittedCosts(cost, errors)


def _predictors(cost: InstanceCost) -> Mapping[Kind, Callable[[StepShape], float]]:
    return {
        Kind.PREFILL: lambda shape: cost.prefill_s(shape.tokens, shape.squares),
        Kind.DECODE: lambda shape: cost.decode_s(shape.batch, shape.context),
        Kind.MIXED: lambda shape: cost.mixed_s(
            shape.tokens, shape.squares, shape.batch, shape.context
        ),
    }


def _errors(seen: Sequence[Observation], predict: Callable[[StepShape], float]) -> Errors:
    observed = np.array([each.median_s for each in seen])
    signed = np.array([predict(each.shape) for each in seen]) / observed - 1
    relative = np.abs(signed)
    return Errors(
        median=float(np.median(relative)),
        p90=float(np.quantile(relative, 0.9)),
        maximum=float(relative.max()),
        bias=float(np.median(signed)),
        shapes=len(seen),
        steps=sum(len(each.seconds) for each in seen),
    )
