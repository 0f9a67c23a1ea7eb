"""What a whole bench found."""

from collections.abc import Sequence
from dataclasses import dataclass

from pdserve.bench.comparison import Compared
from pdserve.bench.session import Prepared, Slice
from pdserve.bench.summary import Summary
from pdserve.planner.slo import Slo


@dataclass(frozen=True, slots=True)
class Point:
    """A target at a rate: its figures, and the runs that they are of."""

    summary: Summary
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class RateComparison:
    """How the two targets compare at a rate."""

    rate: float
    measures: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """Points in the order of their rates, by target; `knee` is the goodput that a sweep found."""

    targets: tuple[Prepared, ...]
    slo: Slo
    points: tuple[Point, ...]
    knee: float | None = None
    comparisons: tuple[RateComparison, ...] = ()

    @property
    def answered(self) -> int:
        """Requests that were answered completely."""
        return sum(point.summary.outcomes.get("ok", 0) for point in self.points)

    def of(self, target: str) -> Sequence[Point]:
        """The points of one target."""
        return [point for point in self.points if point.summary.target == target]
