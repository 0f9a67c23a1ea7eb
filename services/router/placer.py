"""Where one attempt of a request runs: the question, the answers, and who gives them."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from pdserve.kv.layout import KvLayout
from pdserve.rpc.v1 import types_pb2
from services.router.view import Candidate, FleetView

# From the highest; works and columns of a placer are in this order.
PRIORITIES = (types_pb2.PRIORITY_HIGH, types_pb2.PRIORITY_NORMAL, types_pb2.PRIORITY_LOW)


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
class Objectives:
    """What is left of a request's SLO: until its first token is due, and between tokens; seconds.

    None: there is none, or none any more. `hard`: rather refuse the request than miss them.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    hard: bool = False

    @property
    def any(self) -> bool:
        """Whether there is anything to miss."""
        return self.ttft_s is not None or self.tpot_s is not None


# Names of the full blocks of the tokens to prefill, as instances with such a layout report them.
BlockNames: TypeAlias = Callable[[KvLayout], Sequence[int]]


def _no_names(_: KvLayout) -> Sequence[int]:
    return ()


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What is to be placed: `tokens` to prefill now, and `total_tokens` of context at the end.

    `exclusions` are keyed by incarnation and hold for this request only. `fingerprint` is that of
    the model that began the output, empty while there is none: another one would go on differently.
    """

    tokens: int
    total_tokens: int
    exclusions: Mapping[str, Exclusion] = field(default_factory=dict)
    objectives: Objectives = Objectives()
    priority: types_pb2.Priority.ValueType = types_pb2.PRIORITY_NORMAL
    block_names: BlockNames = _no_names
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """What is expected of one placement; seconds, tokens and bytes per second.

    `ttft_s` is queue and computing, `tpot_s` holds the hand-off's share; `violation` is by how much
    objectives are missed, as a share of them.
    """

    rung: Rung
    prefill: str
    decode: str
    queue_s: float
    compute_s: float
    ttft_s: float
    handoff_s: float
    bandwidth: float
    tpot_s: float
    violation: float
    cached_tokens: int
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision and why it was taken; `prefill` is None on the local rung.

    `scores` are the best of the `considered` placements, the chosen one first; `decision_s` is how
    long the decision took.
    """

    rung: Rung
    prefill: Candidate | None
    decode: Candidate
    reason: str
    scores: tuple[Score, ...] = ()
    considered: int = 0
    decision_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """No placement is possible now. `overloaded`: for want of capacity, so that waiting is vain.

    `retry_after_s` is when it may be otherwise, 0 where that is not known. `field` names the
    objective of the request that cannot be met, where it is for want of that; `scores` are the best
    of the placements that were weighed.
    """

    reason: str
    overloaded: bool = False
    retry_after_s: float = 0.0
    field: str = ""
    scores: tuple[Score, ...] = ()


# Pairs of incarnations, prefill and decode, between which no hand-off gets through just now.
OpenPairs: TypeAlias = Callable[[], Set[tuple[str, str]]]


class Placer(Protocol):
    """A policy. It decides from plain data alone, and at once."""

    def place(self, request: PlacementRequest, view: FleetView) -> Placement | Refusal:
        """A placement of `request` on instances of `view`, or why there is none."""
        ...
