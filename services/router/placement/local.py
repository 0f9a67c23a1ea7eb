"""The rung on which decode computes the prompt itself, in chunks between its decode steps."""

import math
from dataclasses import dataclass

import numpy as np

from pdserve.latency.cost import decode_s, mixed_s
from services.router.placement.columns import GUESS
from services.router.placement.sides import Side
from services.router.placer import Placement, PlacementRequest, Rung, Score
from services.router.view import Candidate

# Decode instances that are looked at: with the most of the prompt cached, and with the least to do.
_LOOKED_AT = 3
# Where nobody there has a TPOT objective, a chunk may make a step so much longer.
_STRETCH = 2.0


@dataclass(frozen=True, slots=True)
class Local:
    """What is expected where decode computes the prompt.

    `extra_s` is what its steps take longer by it, `has_room` whether those that decode there keep
    their TPOT meanwhile and the request need not wait for memory.
    """

    decode: Candidate
    cached_tokens: int
    extra_s: float
    has_room: bool
    score: Score

    def placement(self, why: str) -> Placement:
        """This rung as the decision."""
        seconds = f"{self.score.ttft_s * 1e3:.0f} ms"
        reason = f"{why}; {self.decode.name} is expected to have the first token in {seconds}"
        return Placement(Rung.LOCAL, None, self.decode, reason, (self.score,))


def best_local(request: PlacementRequest, decode: Side) -> Local:
    """The decode instance that can best do both phases; `decode` must not be empty."""
    load = decode.rows["decoding"] + decode.rows["waiting"]
    count = min(_LOOKED_AT, len(load))
    looked_at = {*np.argsort(-decode.cached)[:count], *np.argsort(load)[:count]}
    locals_ = [_expect(request, decode, int(index)) for index in sorted(looked_at)]
    return min(locals_, key=lambda each: (not each.has_room, each.score.ttft_s))


def _expect(request: PlacementRequest, decode: Side, index: int) -> Local:
    candidate, row = decode.candidates[index], decode.rows[index]
    cost = candidate.cost or GUESS
    batch, context = float(row["decoding"]), float(row["context"])
    cached = float(decode.cached[index])
    chunks = math.ceil((request.tokens - cached) / max(1.0, row["batch_tokens"] - batch))
    tokens, squares = request.tokens - cached, request.tokens**2 - cached**2
    step_s = mixed_s(cost, tokens / chunks, squares / chunks, batch, context)
    before_s = decode_s(cost, batch, context) if batch else 0.0
    # Prompts that wait there are computed first, at about the same pace.
    queue_s = step_s * float(row["waiting"]) / max(1.0, tokens / chunks)
    compute_s = chunks * step_s
    tpot_s = decode_s(cost, batch + 1, context + request.tokens)
    return Local(
        decode=candidate,
        cached_tokens=int(cached),
        extra_s=chunks * (step_s - before_s),
        has_room=candidate.cost is not None and _has_room(request, row, step_s, before_s),
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
            cached_tokens=int(cached),
            verdict="chosen",
        ),
    )


def _has_room(request: PlacementRequest, row: np.void, step_s: float, before_s: float) -> bool:
    fits = row["waiting"] + request.tokens + 1 <= row["free"]
    seat = row["decoding"] + 1 <= row["batch_seqs"]
    if not row["decoding"]:
        return bool(fits and seat)
    limit_s = min(float(row["tpot_limit"]), request.objectives.tpot_s or math.inf)
    stretched_s = _STRETCH * before_s
    return bool(fits and seat and step_s <= min(limit_s, max(stretched_s, 0.0)))


def _violation(request: PlacementRequest, ttft_s: float, tpot_s: float) -> float:
    objectives = request.objectives
    missed = 0.0
    for seconds, objective_s in ((ttft_s, objectives.ttft_s), (tpot_s, objectives.tpot_s)):
        if objective_s is not None:
            missed += max(0.0, seconds / max(objective_s, 1e-3) - 1)
    return missed
