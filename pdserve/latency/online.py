"""What the passes of an instance cost, learned from its own steps while it serves.

The forms are those of `pdserve.latency.cost`. Their coefficients are the least squares of relative
residuals, as in `pdserve.latency.fit`, with weights that fade exponentially from the latest step
back: what recursive least squares with a forgetting factor minimises (Haykin, "Adaptive Filter
Theory", chapter on RLS). It is solved anew over the latest steps instead of recursively, because

- steps that a page fault or another process slowed down must count little, which takes several
  rounds of reweighting over the observations themselves (Huber, "Robust Statistics", chapter 7);
- coefficients must not be negative;
- a covariance that is carried on grows without bound in directions that no step excites any more.

Where the steps do not tell the terms apart, because all are alike, the coefficients stay as they
were, and at first each term gets a usual share of the time (the least squares are damped towards
those). So predictions of steps like the observed ones are right whatever the others are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost

_Array = NDArray[np.float64]

# Until then the first steps, slow as they are, would be all that is known.
MIN_PREFILL_STEPS, MIN_DECODE_STEPS = 3, 10
# Steps after which an observation counts 1/e, and after which it is forgotten.
_MEMORY_STEPS, _WINDOW_STEPS = 100, 256
# A fit is made anew when an eighth of the observations is new: it costs about 0.3 ms.
_REFITS = 8
# Relative residuals that are noise; what is farther off counts by its distance only.
_NOISE = 0.1
_ROUNDS = 3
# Weight of what was known before, in observations: (noise / how far a share may be off)².
_DAMPING = 0.04
# Shares of base, tokens and squares in a prefill pass; of base, context and batch in a decode step.
_PREFILL_SHARES, _DECODE_SHARES = (0.2, 0.7, 0.1), (0.6, 0.2, 0.2)
# A mixed step tells of prefill only when its linear layers are clearly bound by computing.
_COMPUTING = 1.5
_UNKNOWN = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class LearnedCost:
    """What both passes cost, and the steps that this rests on: none, and zeros, where too few."""

    prefill: PrefillCost
    decode: DecodeCost
    prefill_steps: int
    decode_steps: int


def instance_cost(learned: LearnedCost, kv_tokens: int) -> InstanceCost:
    """The learned cost in the form that predictions take; a pass that is not known costs nothing.

    It is the cost of the instance as it is, whatever its parallelism: `tp` and `pp` are 1.
    """
    return InstanceCost(
        tp=1,
        pp=1,
        prefill=learned.prefill,
        decode=learned.decode,
        decode_large=learned.decode,
        large_from=1,
        kv_tokens=kv_tokens,
    )


class CostLearner:
    """Learns the costs of one instance from its steps."""

    def __init__(self) -> None:
        self._prefill = _Line(_PREFILL_SHARES, MIN_PREFILL_STEPS)
        self._decode = _Line(_DECODE_SHARES, MIN_DECODE_STEPS)

    def observe(
        self, tokens: int, squares: float, batch: int, context: int, seconds: float
    ) -> None:
        """Takes a step in; `tokens` and `squares` as in `PrefillCost`, the others as in
        `DecodeCost`.

        A mixed step, whose parts share the time, tells nothing of decode. What it tells of prefill
        follows from `cost.mixed_s` once decode is known.
        """
        if not batch:
            self._prefill.observe(tokens, squares, seconds)
        elif not tokens:
            self._decode.observe(context, batch, seconds)
        elif (decode := self._decode.coefficients()) is not None:
            base_s, per_context_token_s, per_sequence_s = decode
            linear_s = seconds - per_context_token_s * context
            if linear_s > _COMPUTING * (base_s + per_sequence_s * batch):
                self._prefill.observe(tokens + batch, squares, linear_s)

    def learned(self) -> LearnedCost | None:
        """What is known by now; `None` as long as that is nothing."""
        prefill, decode = self._prefill.coefficients(), self._decode.coefficients()
        if prefill is None and decode is None:
            return None
        return LearnedCost(
            PrefillCost(*(prefill or _UNKNOWN)),
            DecodeCost(*(decode or _UNKNOWN)),
            prefill_steps=self._prefill.steps if prefill else 0,
            decode_steps=self._decode.steps if decode else 0,
        )


class _Line:
    """Learns `seconds = c[0] + c[1] · first + c[2] · second`."""

    def __init__(self, shares: Sequence[float], least_steps: int) -> None:
        self.steps = 0
        self._shares = np.array(shares)
        self._least_steps = least_steps
        self._rows = np.empty((_WINDOW_STEPS, 3))  # relative: (1, first, second) / seconds
        self._coefficients: _Array | None = None
        self._fitted = 0  # steps at the latest fit

    def observe(self, first: float, second: float, seconds: float) -> None:
        """Takes an observation in, unless the clock saw no time pass."""
        if seconds <= 0:
            return
        self._rows[self.steps % _WINDOW_STEPS] = (1 / seconds, first / seconds, second / seconds)
        self.steps += 1

    def coefficients(self) -> tuple[float, float, float] | None:
        """The coefficients; `None` after too few observations."""
        if self.steps < self._least_steps:
            return None
        known = min(self.steps, _WINDOW_STEPS)
        if self._coefficients is None or (self.steps - self._fitted) * _REFITS >= known:
            ages = (self.steps - 1 - np.arange(known)) % _WINDOW_STEPS
            weights = np.exp(-ages / _MEMORY_STEPS)
            before = self._coefficients
            self._coefficients = _fit(self._rows[:known], weights, before, self._shares)
            self._fitted = self.steps
        base_s, per_first_s, per_second_s = self._coefficients.tolist()
        return base_s, per_first_s, per_second_s


def _fit(rows: _Array, weights: _Array, before: _Array | None, shares: _Array) -> _Array:
    """Coefficients `[3]` for which `rows @ coefficients` is about 1, damped towards `before`."""
    # In units of the coefficient that would explain the observations alone, all terms are alike:
    # what is sought are the terms' shares of the time.
    unit = weights.sum() / (weights @ rows)
    rows = rows * unit
    known = shares if before is None else before / unit
    found = known
    for _ in range(_ROUNDS):
        distance = np.abs(1 - rows @ found)
        weighted = rows * (weights * np.minimum(1, _NOISE / np.maximum(distance, _NOISE)))[:, None]
        gram = weighted.T @ rows + _DAMPING * np.eye(len(shares))
        found = _non_negative(gram, weighted.sum(axis=0) + _DAMPING * known)
    coefficients: _Array = found * unit
    return coefficients


def _non_negative(gram: _Array, moments: _Array) -> _Array:
    """Where `x @ gram @ x / 2 − moments @ x` is least among x ≥ 0; `gram` is positive definite.

    The optimum is the unconstrained one of some subset of the variables, the others being zero
    (Lawson and Hanson, "Solving Least Squares Problems", chapter 23).
    """
    best, best_gain = np.zeros(len(moments)), 0.0
    for size in range(len(moments), 0, -1):
        for chosen in combinations(range(len(moments)), size):
            subset = list(chosen)
            solution = np.linalg.solve(gram[np.ix_(subset, subset)], moments[subset])
            gain = float(moments[subset] @ solution)
            if (solution >= 0).all() and gain > best_gain:
                best, best_gain = np.zeros(len(moments)), gain
                best[subset] = solution
        if size == len(moments) and best_gain:
            break  # nothing was in the way
    return best
