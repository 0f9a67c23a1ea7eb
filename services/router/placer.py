"""Where one attempt of a request runs: the question, the answers, and who gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from services.router.view import Candidate, FleetView


class Rung(StrEnum):
    """A step of the ladder of placements (docs: failure contract)."""

    # Prefill on P, decode on D.
    REMOTE = "remote"
    # Both phases on D.
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An instance that this request should avoid, since an attempt failed there.

    Where nothing else is left it may be tried again once a report of it is younger than
    `until_report_after`, which proves that it lives. `overloaded` says that it refused for load.
    """

    until_report_after: float
    overloaded: bool = False


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What is to be placed: `tokens` to prefill now, and `total_tokens` of context at the end.

    `exclusions` are keyed by incarnation and hold for this request only.
    """

    tokens: int
    total_tokens: int
    exclusions: Mapping[str, Exclusion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision and why it was taken; `prefill` is None on the local rung."""

    rung: Rung
    prefill: Candidate | None
    decode: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """No placement is possible now. `overloaded`: prefill refused for load, so waiting is vain."""

    reason: str
    overloaded: bool = False


class Placer(Protocol):
    """A policy. It decides from plain data alone, and at once."""

    def place(self, request: PlacementRequest, view: FleetView) -> Placement | Refusal:
        """A placement of `request` on instances of `view`, or why there is none."""
        ...
