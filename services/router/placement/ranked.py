"""The placers that know no costs: they rank each phase by itself and take the first pair."""

from collections.abc import Sequence
from typing import Protocol

from services.router.placement.eligible import (
    able_decodes,
    able_prefills,
    first_pair,
    no_pair,
    nobody,
    overload,
)
from services.router.placer import OpenPairs, Placement, PlacementRequest, Refusal, Rung
from services.router.view import Candidate, FleetView


class Ranking(Protocol):
    """An order of preference. Sorting is stable: what failed the request stays behind."""

    def prefills(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """Prefill instances, the most wanted first."""
        ...

    def decodes(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """Decode instances, the most wanted first."""
        ...


class RankedPlacer:
    """Prefill and decode where `ranking` likes it best.

    Both phases run on decode when `colocated`, or when no prefill instance is left for the request;
    a prefill instance that is merely overloaded is a reason to refuse, not to burden decode.
    `open_pairs` says which pairs must not be used now.
    """

    def __init__(
        self, ranking: Ranking, open_pairs: OpenPairs = frozenset, *, colocated: bool
    ) -> None:
        self._ranking = ranking
        self._open_pairs = open_pairs
        self._colocated = colocated

    def place(self, request: PlacementRequest, view: FleetView) -> Placement | Refusal:
        """The first placement in the order of the ranking, or why there is none."""
        decodes = self._in_order(request, self._ranking.decodes(able_decodes(request, view)))
        if not decodes:
            return Refusal(nobody("decode", view))
        if self._colocated:
            return _local(decodes[0], "colocated")
        prefills = self._in_order(request, self._ranking.prefills(able_prefills(request, view)))
        pair = first_pair(prefills, decodes, self._open_pairs())
        if pair:
            return _remote(*pair, view)
        why = no_pair(prefills, decodes, view)
        return overload(request, view) or _local(decodes[0], why)

    def _in_order(
        self, request: PlacementRequest, ranked: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        if not request.exclusions:
            return ranked
        return sorted(ranked, key=lambda each: each.incarnation in request.exclusions)


def _remote(prefill: Candidate, decode: Candidate, view: FleetView) -> Placement:
    reason = (
        f"{prefill.name} has {prefill.load.tokens} prompt tokens to do (of {len(view.prefill)}), "
        f"{decode.name} has {_requests(decode)} (of {len(view.decode)})"
    )
    return Placement(Rung.REMOTE, prefill, decode, reason)


def _local(decode: Candidate, why: str) -> Placement:
    return Placement(Rung.LOCAL, None, decode, f"{why}; {decode.name} has {_requests(decode)}")


def _requests(candidate: Candidate) -> str:
    count = candidate.load.requests
    return "1 request" if count == 1 else f"{count} requests"
