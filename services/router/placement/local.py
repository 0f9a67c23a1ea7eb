"""The rung on which decode computes the prompt itself, in chunks between its decode steps."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pdserve.latency.cost import InstanceCost, decode_s, mixed_s
from services.router.placement.columns import BATCH_TOKENS, GUESS
from services.router.placement.sides import Side
from services.router.placer import Placement, PlacementRequest, Rung, Score
from services.router.view import Candidate

# Decode instances that are looked at: with the most of the prompt cached, and with the least to do.
_LOOKED_AT = 2
# Where nobody there has a TPOT objective, a chunk may make a step so much longer.
_STRETCH = 2.0


@dataclass(frozen=True, slots=True)
class Local:
    """What is expected where decode computes the prompt.

    `total_s` is until the expected end. `extra_s` is what the steps of all that decode there take
    longer by it, together. `known` says whether all that rests on what the instance costs, and not
    on a guess; `has_room`, whether it is known that they keep their TPOT meanwhile and the request
    need not wait for memory.
    """

    decode: Candidate
    total_s: float
    extra_s: float
    known: bool
    has_room: bool
    score: Score

    def placement(self, why: str) -> Placement:
        """This rung as the decision."""
        reason = f"{why}; {self.decode.name} has {self.decode.load.requests} requests"
        return Placement(Rung.LOCAL, None, self.decode, reason, (self.score,))


def best_local(request: PlacementRequest, decode: Side, gaps: float) -> Local:
    """The decode instance that can best do both phases of a request with so many gaps between its
    tokens; `decode` must not be empty.
    """
    load = decode.rows["decoding"] + decode.rows["waiting"]
    looked_at = {*_least(load)}
    if decode.cached.any():
        looked_at.update(_least(-decode.cached))
    locals_ = [_expect(request, decode, int(index), gaps) for index in sorted(looked_at)]
    return min(locals_, key=lambda each: (not each.has_room, each.score.ttft_s))


def _least(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where the least of the values are."""
    count = min(_LOOKED_AT, len(values))
    return np.argpartition(values, count - 1)[:count]


def _expect(request: PlacementRequest, decode: Side, index: int, gaps: float) -> Local:
    candidate = decode.candidates[index]
    cost, known = _cost(candidate)
    load = candidate.load
    batch, context = load.decoding, load.tokens
    cached = int(decode.cached[index])
    tokens, squares = request.tokens - cached, request.tokens**2 - cached**2
    chunks = math.ceil(tokens / max(1, (candidate.limits.batch_tokens or BATCH_TOKENS) - batch))
    step_s = mixed_s(cost, tokens / chunks, squares / chunks, batch, context)
    before_s = decode_s(cost, batch, context) if batch else 0.0
    # Prompts that wait there are computed first, at about the same pace.
    queue_s = step_s * load.waiting_tokens * chunks / tokens
    compute_s = chunks * step_s
    tpot_s = decode_s(cost, batch + 1, context + request.tokens)
    return Local(
        decode=candidate,
        total_s=queue_s + compute_s + tpot_s * gaps,
        # The request's own time counts too: that of the device is not free when nobody decodes.
        extra_s=chunks * (step_s - before_s) * (batch + 1),
        known=known,
        has_room=known and _has_room(request, candidate, step_s, before_s),
        score=Score(
            rung=Rung.LOCAL,
            prefill="",
            decode=candidate.name,
            queue_s=queue_s,
            compute_s=compute_s,
            ttft_s=queue_s + compute_s,
            handoff_s=0.0,
            bandwidth=0.0,
            tpot_s=tpot_s,
            violation=_violation(request, queue_s + compute_s, tpot_s),
            cached_tokens=cached,
            verdict="chosen",
        ),
    )


def _cost(candidate: Candidate) -> tuple[InstanceCost, bool]:
    """What the candidate's passes cost, and whether that is known; guessed where it is not."""
    cost = candidate.cost
    if cost is None:
        return GUESS, False
    # Decode that has never computed a prompt, and nobody else has either.
    known = math.isfinite(cost.prefill.base_s)
    return (cost if known else replace(cost, prefill=GUESS.prefill)), known


def _has_room(
    request: PlacementRequest, candidate: Candidate, step_s: float, before_s: float
) -> bool:
    load, seats = candidate.load, candidate.limits.batch_seqs or math.inf
    if load.waiting_tokens + request.tokens + 1 > load.free_tokens or load.decoding >= seats:
        return False
    limits = [each for each in (load.tpot_limit_s, request.objectives.tpot_s) if each]
    return not load.decoding or step_s <= min([*limits, _STRETCH * before_s])


def _violation(request: PlacementRequest, ttft_s: float, tpot_s: float) -> float:
    objectives = request.objectives
    missed = 0.0
    for seconds, objective_s in ((ttft_s, objectives.ttft_s), (tpot_s, objectives.tpot_s)):
        if objective_s is not None:
            missed += max(0.0, seconds / max(objective_s, 1e-3) - 1)
    return missed
