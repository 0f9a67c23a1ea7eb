"""All pairs that are weighed for one request, and which of them is the best."""

import random
from dataclasses import dataclass
from typing import SupportsInt

import numpy as np
from numpy.typing import NDArray

from services.router.links import Floats
from services.router.placement.prediction import Decodes, Prefills
from services.router.placement.sides import Side
from services.router.placer import Objectives, PlacementRequest, Rung, Score

# Differences that no prediction can tell apart: of a violation, and of a time.
VIOLATION_SLACK = 0.02
_TIME_SLACK = 0.02
_TIME_SLACK_S = 1e-3
# Decode instances are filled up to this share of the TPOT objective.
_FULL = 0.9
_FULL_SLACK = 0.05
_RUNNERS_UP = 3

Pair = tuple[int, int]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is expected of each pair `[p, d]`, or of its prefill `[p]` or decode instance `[d]`.

    `tpot_s` holds the hand-off's share, `total_s` is until the expected end. `violation` is the
    share by which objectives are missed: the request's own, and the TPOT of those it joins.
    `count` pairs are `usable`.
    """

    prefill: Side
    decode: Side
    objectives: Objectives
    expected: Prefills
    steps: Decodes
    handoff_s: Floats
    bandwidth: Floats
    tpot_s: Floats
    total_s: Floats
    violation: Floats
    usable: NDArray[np.bool_]
    count: int

    def best(self, lot: random.Random) -> Pair:
        """The pair to take; `lot` decides among equals. There must be one that can be used."""
        columns = self.usable.shape[1]
        left = np.flatnonzero(self.usable)
        violation = self.violation.ravel()[left]
        least = violation.min()
        left = left[violation <= least + VIOLATION_SLACK]
        if self.objectives.any and least <= VIOLATION_SLACK:
            left = _least(left, -self.prefill.cached[left // columns])
            left = self._packed(left)
        total_s = self.total_s.ravel()[left]
        left = _least(left, total_s, _TIME_SLACK_S + _TIME_SLACK * total_s.min())
        return self._pair(lot.choice(left))

    def _packed(self, left: Indices) -> Indices:
        """Those of some pairs, by flat index, that fill decode best, up to its TPOT objective."""
        if self.objectives.tpot_s is None:
            return left
        full = self.tpot_s.ravel()[left] / (_FULL * self.objectives.tpot_s)
        left = _least(left, np.maximum(0.0, full - 1), VIOLATION_SLACK)
        step_s = self.steps.step_s
        return _least(left, -step_s[left % len(step_s)], _FULL_SLACK * step_s.max())

    def known(self, pair: Pair) -> bool:
        """Whether the expectation rests on what the two instances cost, not on a guess."""
        return bool(self.prefill.rows["known"][pair[0]] and self.decode.rows["known"][pair[1]])

    def score(self, pair: Pair, verdict: str) -> Score:
        """What is expected of one pair."""
        p, d = pair
        return Score(
            rung=Rung.REMOTE,
            prefill=self.prefill.candidates[p].name,
            decode=self.decode.candidates[d].name,
            queue_s=float(self.expected.queue_s[p]),
            compute_s=float(self.expected.compute_s[p]),
            ttft_s=float(self.expected.ttft_s[p]),
            handoff_s=float(self.handoff_s[pair]),
            bandwidth=float(self.bandwidth[pair]),
            tpot_s=float(self.tpot_s[pair]),
            violation=float(self.violation[pair]),
            cached_tokens=int(self.prefill.cached[p]),
            verdict=verdict,
        )

    def runners_up(self, chosen: Pair) -> tuple[Score, ...]:
        """The next best, the best first, with what they lack beside the chosen one."""
        rank = np.where(self.usable, self.violation * 1e6 + self.total_s, np.inf)
        rank[chosen] = np.inf
        scores = []
        for _ in range(min(_RUNNERS_UP, self.count - 1)):
            pair = self._pair(rank.argmin())
            scores.append(self.score(pair, self._verdict(pair, chosen)))
            rank[pair] = np.inf
        return tuple(scores)

    def _verdict(self, pair: Pair, chosen: Pair) -> str:
        more = self.violation[pair] - self.violation[chosen]
        if more > VIOLATION_SLACK:
            return f"misses the objectives by {self.violation[pair]:.0%}"
        fewer = self.prefill.cached[chosen[0]] - self.prefill.cached[pair[0]]
        if fewer > 0:
            return f"has {fewer:.0f} fewer tokens cached"
        later_s = self.total_s[pair] - self.total_s[chosen]
        if later_s > _TIME_SLACK_S + _TIME_SLACK * self.total_s[chosen]:
            return f"would end {later_s * 1e3:.0f} ms later"
        if self.steps.step_s[pair[1]] < self.steps.step_s[chosen[1]]:
            return "leaves a fuller decode instance unused"
        return "as good"

    def _pair(self, flat: SupportsInt) -> Pair:
        p, d = divmod(int(flat), self.usable.shape[1])
        return p, d


def _least(left: Indices, values: Floats, slack: float = 0.0) -> Indices:
    """Those of `left` whose values are the least, or as good as that."""
    return np.asarray(left[values <= values.min() + slack])


def weigh(
    request: PlacementRequest,
    sides: tuple[Side, Side],
    expected: Prefills,
    steps: Decodes,
    handoff_s: Floats,
    bandwidth: Floats,
    usable: NDArray[np.bool_],
    gaps: float,
) -> Pairs:
    """The pairs of two sides with all that is expected of them by a request with so many gaps
    between its tokens.
    """
    prefill, decode = sides
    tpot_s = steps.step_s + handoff_s / gaps
    objectives = request.objectives
    violation = np.maximum(0.0, steps.step_s / decode.rows["tpot_limit"] - 1) + np.zeros_like(
        tpot_s
    )
    if objectives.ttft_s is not None:
        violation += excess(expected.ttft_s, objectives.ttft_s)[:, None]
    if objectives.tpot_s is not None:
        violation += excess(tpot_s, objectives.tpot_s)
    return Pairs(
        prefill=prefill,
        decode=decode,
        objectives=objectives,
        expected=expected,
        steps=steps,
        handoff_s=handoff_s,
        bandwidth=bandwidth,
        tpot_s=tpot_s,
        total_s=expected.ttft_s[:, None] + tpot_s * gaps,
        violation=violation,
        usable=usable,
        count=int(usable.sum()),
    )


def excess(seconds: Floats, objective_s: float) -> Floats:
    """By which share of itself an objective is missed; one that has passed is missed by much."""
    return np.maximum(0.0, seconds / max(objective_s, 1e-3) - 1)
