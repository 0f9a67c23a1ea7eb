"""Goodput: the highest request rate at which the target share of requests meets its SLOs.

DistServe (OSDI 2024, section 2.1) defines it per GPU; its section 4.1 finds it by bisection on the
rate, with a simulation at each.
"""

from collections.abc import Callable
from dataclasses import dataclass

_MOST_DOUBLINGS = 24


@dataclass(frozen=True, slots=True)
class Bisection:
    """How exactly a rate is sought: to a relative `tolerance`."""

    tolerance: float = 0.02

    def highest(self, meets: Callable[[float], bool], guess: float) -> float:
        """The highest rate that `meets`, as far as it is monotonous; 0 where no rate does.

        The search starts at `guess`, which must be above 0, and goes up or down from there by
        doubling until the limit lies between two rates.
        """
        low, high = self._bracket(meets, guess)
        while high > low * (1 + self.tolerance):
            middle = (low * high) ** 0.5
            if meets(middle):
                low = middle
            else:
                high = middle
        return low

    def _bracket(self, meets: Callable[[float], bool], guess: float) -> tuple[float, float]:
        factor = 2.0 if meets(guess) else 0.5
        rate = guess
        for _ in range(_MOST_DOUBLINGS):
            further = rate * factor
            if meets(further) != (factor > 1):
                return (rate, further) if factor > 1 else (further, rate)
            rate = further
        return (rate, rate) if factor > 1 else (0.0, 0.0)
