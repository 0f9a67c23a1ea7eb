"""Fits the linear costs of `pdserve.latency.cost` to observed times.

Least squares of *relative* residuals: every row is divided by the time observed, so that a pass of
2 ms counts as much as one of 2 s. Coefficients are seconds per something and cannot be negative.
"""

from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, PrefillCost

_Array = NDArray[np.float64]

_COLUMNS = 3
# Fewest columns first: among equally good fits the one with the fewest terms is taken.
_SUBSETS = tuple(
    chain.from_iterable(combinations(range(_COLUMNS), count) for count in range(1, _COLUMNS + 1))
)
# A second regime must lessen the squared relative error by this share; noise alone lessens it too.
_SECOND_REGIME_GAIN = 0.1
# Mean relative error, squared, that is rounding and not a misfit: no second regime is sought below.
_EXACT = 1e-12


@dataclass(frozen=True, slots=True)
class FitError:
    """Relative errors |predicted − observed| / observed over the observations of a fit."""

    median: float
    maximum: float
    observations: int


def fit_prefill(
    tokens: ArrayLike, squares: ArrayLike, seconds: ArrayLike
) -> tuple[PrefillCost, FitError]:
    """The cost of passes over `tokens[i]` and `squares[i]` that took `seconds[i]`.

    `tokens` and `squares` are those of `PrefillCost`. Raises `ConfigError` for fewer than three
    observations, different lengths, or values that are not finite and positive.
    """
    rows, observed = _design(seconds, tokens=tokens, squares=squares)
    coefficients = _non_negative(rows, observed)
    return PrefillCost(*coefficients.tolist()), relative_error(rows @ coefficients, observed)


def fit_decode(
    batch: ArrayLike, context: ArrayLike, seconds: ArrayLike
) -> tuple[DecodeCost, DecodeCost, int, FitError]:
    """The costs of small and of large batches, and the batch size from which a batch is large.

    Step i decoded `batch[i]` sequences with `context[i]` tokens of context in all and took
    `seconds[i]`. Every batch size that leaves both sides determined is tried as the threshold, and
    the one with the least squared relative error is taken; where two regimes are hardly better
    than one, both costs are the same. Raises `ConfigError` as `fit_prefill` does.
    """
    rows, observed = _design(seconds, context=context, batch=batch)
    batches = rows[:, 2]
    one = _non_negative(rows, observed)
    small, large, large_from = one, one, int(np.ceil(batches.max())) + 1
    misfit = _squared(rows, observed, one)
    split = _best_split(rows, observed) if misfit > _EXACT * observed.size else None
    if split is not None and split.squared < misfit * (1 - _SECOND_REGIME_GAIN):
        small, large, large_from = split.small, split.large, split.large_from
    predicted = np.where(batches < large_from, rows @ small, rows @ large)
    costs = DecodeCost(*small.tolist()), DecodeCost(*large.tolist())
    return *costs, large_from, relative_error(predicted, observed)


@dataclass(frozen=True, slots=True)
class _Split:
    """Coefficients `[columns]` of both regimes and their squared relative error."""

    small: _Array
    large: _Array
    large_from: int
    squared: float


def _best_split(rows: _Array, observed: _Array) -> _Split | None:
    """The two regimes with the least error; `None` where no threshold leaves both determined."""
    splits = []
    for threshold in np.unique(np.ceil(rows[:, 2]))[1:]:
        below = rows[:, 2] < threshold
        if not (_determined(rows[below]) and _determined(rows[~below])):
            continue
        small = _non_negative(rows[below], observed[below])
        large = _non_negative(rows[~below], observed[~below])
        squared = _squared(rows[below], observed[below], small)
        squared += _squared(rows[~below], observed[~below], large)
        splits.append(_Split(small, large, int(threshold), squared))
    return min(splits, key=lambda split: split.squared, default=None)


def relative_error(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> FitError:
    """How far predicted times are from observed ones."""
    relative = np.abs(predicted - observed) / observed
    return FitError(float(np.median(relative)), float(relative.max()), observed.size)


def _design(seconds: ArrayLike, **columns: ArrayLike) -> tuple[_Array, _Array]:
    """The rows `[observations, (1, *columns)]` and the times observed."""
    observed = _checked("seconds", seconds)
    values = [_checked(name, column) for name, column in columns.items()]
    for name, value in zip(columns, values, strict=True):
        if value.size != observed.size:
            raise ConfigError(
                f"{name} has {value.size} values and seconds has {observed.size}", field=name
            )
    if observed.size < _COLUMNS:
        raise ConfigError(
            f"{observed.size} observations; a fit needs at least {_COLUMNS}",
            field="seconds",
            limit=str(_COLUMNS),
        )
    return np.column_stack([np.ones_like(observed), *values]), observed


def _checked(name: str, values: ArrayLike) -> _Array:
    array = np.asarray(values, dtype=np.float64).ravel()
    wrong = array[~(np.isfinite(array) & (array > 0))]
    if wrong.size:
        raise ConfigError(
            f"{name} has the value {wrong[0]}; observations must be finite and above 0", field=name
        )
    return array


def _non_negative(rows: _Array, observed: _Array) -> _Array:
    """Non-negative coefficients `[columns]` with the least squared relative error.

    The optimum is the unconstrained one of some subset of the columns, the others being zero
    (Lawson and Hanson, "Solving Least Squares Problems", chapter 23). With three columns all
    seven subsets are tried.
    """
    best, best_error = np.zeros(rows.shape[1]), np.inf
    scale = rows.max(axis=0)
    relative = rows / scale / observed[:, None]
    for subset in _SUBSETS:
        solution, *_ = np.linalg.lstsq(relative[:, subset], np.ones_like(observed), rcond=None)
        if (solution < 0).any():
            continue
        coefficients = np.zeros(rows.shape[1])
        coefficients[list(subset)] = solution / scale[list(subset)]
        error = _squared(rows, observed, coefficients)
        if error < best_error:
            best, best_error = coefficients, error
    return best


def _determined(rows: _Array) -> bool:
    """Whether these observations fix all coefficients."""
    if len(rows) < _COLUMNS:
        return False
    return int(np.linalg.matrix_rank(rows / rows.max(axis=0))) == _COLUMNS


def _squared(rows: _Array, observed: _Array, coefficients: _Array) -> float:
    return float((((rows @ coefficients) / observed - 1) ** 2).sum())
