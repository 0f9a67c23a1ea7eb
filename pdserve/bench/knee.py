"""Finds the highest rate that a server still serves as it should."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pdserve.errors import ConfigError

# Whether the target share of requests met the SLOs at a rate; None: the search is to end.
Judge = Callable[[float], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Rates from `low` to `high`, and how exactly the knee between them is sought.

    Raises `ConfigError` for values out of range.
    """

    low: float
    high: float
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < float("inf"):
            text = f"sweep is {self.low:g}..{self.high:g}; it must be LOW..HIGH with 0 < LOW < HIGH"
            raise ConfigError(text, field="sweep", limit="0 < LOW < HIGH")
        if not 0.001 <= self.tolerance <= 1:
            text = f"tolerance is {self.tolerance:g}; it must lie in [0.001, 1]"
            raise ConfigError(text, field="tolerance", limit="[0.001, 1]")


async def find_knee(sweep: Sweep, meets: Judge) -> float:
    """The highest rate seen that meets the target, within the tolerance; 0 where `low` does not.

    The rate is doubled from `low` on until it is too high, then bisected in its logarithm, as in
    DistServe's search for goodput (OSDI 2024, section 4.1) but with a server in place of a model.
    """
    good, bad = 0.0, 0.0
    rate = sweep.low
    while not bad:
        verdict = await meets(rate)
        if verdict is None:
            return good
        if not verdict:
            bad = rate
        else:
            good = rate
            if rate == sweep.high:
                return good
            rate = min(2 * rate, sweep.high)
    while good and bad > good * (1 + sweep.tolerance):
        middle = (good * bad) ** 0.5
        verdict = await meets(middle)
        if verdict is None:
            return good
        if verdict:
            good = middle
        else:
            bad = middle
    return good
