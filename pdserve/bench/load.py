"""What is sent at a rate: a trace, stretched, or requests that are drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pdserve.errors import ConfigError
from pdserve.planner.report.formats import number
from pdserve.workload.operations import repeat, rotate
from pdserve.workload.workload import Workload

# Rounds begin at places of a trace that are spread evenly, however many there are.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_MOST_REQUESTS = 10_000_000


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is sent at each rate: `requests`, or what is due in `duration_s`, or either's None.

    Raises `ConfigError` for both, and for values out of range.
    """

    requests: int | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.requests is not None and self.duration_s is not None:
            raise ConfigError("--duration and --requests say the same thing", field="duration")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            text = f"duration is {self.duration_s} s; it must be above 0"
            raise ConfigError(text, field="duration", limit="> 0")

    def at(self, rate: float) -> int | None:
        """Requests at `rate`; None where neither is given. Raises `ConfigError`."""
        if self.duration_s is None:
            return self.requests
        if not math.isfinite(rate):
            raise ConfigError("the trace is a burst, which has no --duration", field="duration")
        count = max(1, round(rate * self.duration_s))
        if count > _MOST_REQUESTS:
            text = f"{rate:g} requests/s for {self.duration_s:g} s are over {_MOST_REQUESTS:,}"
            raise ConfigError(text, field="duration", limit=str(_MOST_REQUESTS))
        return count


class Load(Protocol):
    """Makes the workloads of a run."""

    @property
    def rate(self) -> float:
        """Requests per second where no other rate is asked for."""
        ...

    def at(self, rate: float, number: int) -> Workload:
        """The workload of round `number` at `rate`; rounds are alike, but not the same."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TraceLoad:
    """A trace at any rate, over and over where more of it is wanted than there is."""

    trace: Workload
    amount: Amount

    @property
    def rate(self) -> float:
        """The trace's own."""
        return self.trace.rate

    def at(self, rate: float, number: int) -> Workload:
        """See `Load.at`: round 0 begins where the trace does."""
        begun = rotate(self.trace, number * _GOLDEN_RATIO % 1)
        stretched = begun.at_rate(rate) if math.isfinite(rate) else begun
        count = self.amount.at(rate)
        return stretched if count is None else repeat(stretched, count)


@dataclass(frozen=True, slots=True)
class DrawnLoad:
    """Requests that `draw` makes: so many, at a rate, in the manner of a round."""

    draw: Callable[[int, float, int], Workload]
    rate: float
    amount: Amount

    def at(self, rate: float, number: int) -> Workload:
        """See `Load.at`."""
        count = self.amount.at(rate)
        assert count is not None
        return self.draw(count, rate, number)


def rate_text(rate: float) -> str:
    """In requests per second; a burst has no rate."""
    return f"{number(rate)} requests/s" if math.isfinite(rate) else "a burst"
