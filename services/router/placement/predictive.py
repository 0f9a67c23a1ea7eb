"""The placer that predicts: the pair with the least expected violation of the request's SLO.

Among pairs that are expected to meet it, the one that has most of the prompt cached, then the
fullest decode instance that still does: what stays empty can take the next burst, or be given up.
A request without an SLO goes where it is expected to end first. Decode computes the prompt itself
where no pair meets the SLO as well, or where that costs those that decode there less time than it
saves, and only while they keep their TPOT (chunks among decodes: Sarathi-Serve, OSDI 2024, section
4.2).
"""

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pdserve.cluster.instance import Role
from pdserve.kv.layout import KvLayout
from services.router.knowledge import Knowledge
from services.router.placement.columns import layouts_in
from services.router.placement.eligible import (
    able_decodes,
    able_prefills,
    mismatch,
    no_pair,
    nobody,
    overload,
)
from services.router.placement.local import Local, best_local
from services.router.placement.pairs import VIOLATION_SLACK, Pair, Pairs, weigh
from services.router.placement.prediction import decodes, handoffs, prefills
from services.router.placement.sides import Side, Sides
from services.router.placer import (
    Objectives,
    OpenPairs,
    Placement,
    PlacementRequest,
    Refusal,
    Rung,
    Score,
)
from services.router.view import Candidate, FleetView

# Prefill instances that are weighed against every decode instance: the soonest, and of those that
# have most of the prompt cached.
_SOONEST = 12
_BEST_CACHED = 4
_MIN_RETRY_S = 0.1


class Predictive:
    """Places by what `knowledge` lets expect. `open_pairs` says which pairs must not be used now.

    `lot` decides among placements that are as good as equal, so that several routers, which see the
    same reports, do not all send to the same instance.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        open_pairs: OpenPairs,
        lot: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knowledge = knowledge
        self._open_pairs = open_pairs
        self._lot = lot
        self._clock = clock
        self._sides = Sides(knowledge)

    def place(self, request: PlacementRequest, view: FleetView) -> Placement | Refusal:
        """The best placement, or why there is none."""
        able = able_decodes(request, view)
        if not able:
            return Refusal(nobody("decode", view))
        decode = self._sides.side(Role.DECODE, request, able)
        gaps = self._gaps(request)
        local = best_local(request, decode, gaps)
        sources = able_prefills(request, view)
        pairs = self._pairs(request, sources, decode, gaps) if sources else None
        if pairs is None or not pairs.count:
            why = no_pair(sources, decode.candidates, view)
            return overload(request, view) or self._local_alone(request, local, why)
        best = pairs.best(self._lot)
        if local.has_room and (why := _local_is_better(local, pairs, best)):
            return local.placement(why)
        if _insists(request) and pairs.violation[best] > VIOLATION_SLACK and pairs.known(best):
            batch = float(pairs.decode.rows["decoding"][best[1]])
            scores = pairs.score(best, "misses least"), *pairs.runners_up(best)
            where = f"on the best of {pairs.count} pairs"
            return self._refusal(request.objectives, scores, batch, where)
        return _remote(pairs, best)

    def _local_alone(
        self, request: PlacementRequest, local: Local, why: str
    ) -> Placement | Refusal:
        """The local rung where there is no other; a hard objective holds there as well."""
        if _insists(request) and local.score.violation > VIOLATION_SLACK and local.known:
            where = f"{why}; on {local.decode.name} alone"
            batch = float(local.decode.load.decoding)
            return self._refusal(request.objectives, (local.score,), batch, where)
        return local.placement(why)

    def _gaps(self, request: PlacementRequest) -> float:
        """How many gaps between its tokens the request is expected to have."""
        most = request.total_tokens - request.tokens
        return max(1.0, min(self._knowledge.habits.output_tokens, most) - 1)

    def _pairs(
        self,
        request: PlacementRequest,
        sources: Sequence[Candidate],
        decode: Side,
        gaps: float,
    ) -> Pairs:
        """What is expected of every pair of the shortlist."""
        everywhere = self._sides.side(Role.PREFILL, request, sources)
        expected = prefills(
            everywhere.rows, request.tokens, everywhere.cached, request.priority, self._clock()
        )
        short = _shortlist(expected.ttft_s, everywhere.cached)
        prefill, expected = everywhere.only(short), expected[short]
        steps = decodes(decode.rows, request.tokens, self._knowledge.habits)
        links = self._knowledge.links.estimates(prefill.slots, decode.slots)
        size_bytes = (request.tokens - decode.cached) * decode.rows["token_bytes"]
        return weigh(
            request,
            (prefill, decode),
            expected,
            steps,
            handoffs(prefill.rows, expected.compute_s, links, size_bytes, steps.admission_s),
            links.bytes_per_s,
            self._usable(prefill, decode),
            gaps,
        )

    def _usable(self, prefill: Side, decode: Side) -> NDArray[np.bool_]:
        """Which pairs may hand KV over `[p, d]`: they are compatible, and not known to fail."""
        usable = _compatible(prefill, decode)
        if not (open_pairs := self._open_pairs()):
            return usable
        rows = {each.incarnation: place for place, each in enumerate(prefill.candidates)}
        columns = {each.incarnation: place for place, each in enumerate(decode.candidates)}
        for source, target in open_pairs:
            if source in rows and target in columns:
                usable[rows[source], columns[target]] = False
        return usable

    def _refusal(
        self, objectives: Objectives, scores: tuple[Score, ...], batch: float, where: str
    ) -> Refusal:
        """Says at once what a client would else find out too late (DESIGN: the last rung).

        The first of `scores` misses least; so many decode there as `batch` says.
        """
        expected = scores[0]
        late_s, field = 0.0, ""
        missed = []
        if objectives.tpot_s is not None and expected.tpot_s > objectives.tpot_s:
            # One of those that decode there has to end.
            late_s, field = self._knowledge.habits.decode_s / max(1.0, batch), "slo.tpot_ms"
            missed.append(f"TPOT is {expected.tpot_s:.3g} s, {objectives.tpot_s:.3g} s is wanted")
        if objectives.ttft_s is not None and expected.ttft_s > objectives.ttft_s:
            late_s = max(late_s, expected.ttft_s - objectives.ttft_s)
            field = "slo.ttft_ms"
            left_s = max(0.0, objectives.ttft_s)
            missed.append(f"TTFT is {expected.ttft_s:.3g} s, {left_s:.3g} s is left")
        what = " and the ".join(missed) or "TPOT of those that run already would be missed"
        return Refusal(
            f"{where} the expected {what}",
            overloaded=True,
            retry_after_s=max(_MIN_RETRY_S, late_s),
            field=field or "slo.tpot_ms",
            scores=scores,
        )


def _insists(request: PlacementRequest) -> bool:
    """Whether the request is rather refused than served late."""
    return request.objectives.hard and request.objectives.any


def _shortlist(ttft_s: NDArray[np.float64], cached: NDArray[np.float64]) -> NDArray[np.intp]:
    if len(ttft_s) <= _SOONEST + _BEST_CACHED:
        return np.arange(len(ttft_s))
    short = np.zeros(len(ttft_s), dtype=bool)
    short[np.argpartition(ttft_s, _SOONEST)[:_SOONEST]] = True
    short[np.argpartition(-cached, _BEST_CACHED)[:_BEST_CACHED]] = True
    return np.flatnonzero(short)


def _compatible(prefill: Side, decode: Side) -> NDArray[np.bool_]:
    """Which pairs have layouts that agree `[p, d]`; there are few layouts, and many pairs."""
    usable = np.zeros((len(prefill.candidates), len(decode.candidates)), dtype=bool)
    for source, p in _by_layout(prefill):
        for target, d in _by_layout(decode):
            if not mismatch(source, target):
                usable |= p[:, None] & d
    return usable


def _by_layout(side: Side) -> list[tuple[KvLayout, NDArray[np.bool_]]]:
    """Each layout with who has it."""
    holders = [side.rows["layout"] == number for number in layouts_in(side.rows)]
    return [(side.candidates[int(who.argmax())].layout, who) for who in holders]


def _local_is_better(local: Local, pairs: Pairs, best: Pair) -> str:
    """Why decode should compute the prompt; empty where it should not."""
    more = local.score.violation - pairs.violation[best]
    if more < -VIOLATION_SLACK:
        return "no pair is expected to meet the objectives as well"
    if pairs.objectives.any and pairs.violation[best] <= VIOLATION_SLACK:
        # What meets the objectives need not be faster; only the hand-off is work that is saved.
        saved_s = pairs.handoff_s[best]
    else:
        saved_s = pairs.total_s[best] - local.total_s
    if more <= 0 and local.extra_s < saved_s:
        return "computing the prompt costs decode less time than it saves"
    return ""


def _remote(pairs: Pairs, best: Pair) -> Placement:
    score = pairs.score(best, "chosen")
    return Placement(
        Rung.REMOTE,
        pairs.prefill.candidates[best[0]],
        pairs.decode.candidates[best[1]],
        _reason(score, pairs.count, known=pairs.known(best)),
        (score, *pairs.runners_up(best)),
        pairs.count,
    )


def _reason(score: Score, count: int, *, known: bool) -> str:
    which = "the only pair" if count == 1 else f"best of {count} pairs"
    if not known:
        return f"{which} by load: {score.prefill} and {score.decode} have not told their costs yet"
    queue = f"{score.queue_s * 1e3:.0f} ms queue"
    cached = f", {score.cached_tokens} tokens cached" if score.cached_tokens else ""
    missed = score.violation > VIOLATION_SLACK
    return (
        f"{which}: TTFT {score.ttft_s * 1e3:.0f} ms on {score.prefill} ({queue}{cached}),"
        f" hand-off {score.handoff_s * 1e3:.1f} ms at {score.bandwidth / 1e9:.3g} GB/s,"
        f" TPOT {score.tpot_s * 1e3:.1f} ms on {score.decode}"
    ) + (f"; misses the objectives by {score.violation:.0%}" if missed else "")
