"""The budget of retries: what fails everywhere must not be tried ever more often.

A token bucket that requests fill and retries empty, as Finagle's `RetryBudget` is and as Beyer et
al. advise (Site Reliability Engineering, 2016, chapters 21 and 22): retries stay a share of the
requests, whatever fails.
"""

import time
from collections.abc import Callable

# A router with little to do may retry as well: so many tokens come back by themselves,
_RESERVE = 10.0
_RESERVE_PER_S = 1.0
# and no more are saved up than this, lest hours without a failure pay for a storm.
_MOST = 100.0


class RetryBudget:
    """Retries for each request on average: `share`, besides a small reserve."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._tokens = _RESERVE
        self._at = clock()

    def deposit(self) -> None:
        """A request begins."""
        self._refill()
        self._tokens = min(_MOST, self._tokens + self._share)

    def withdraw(self) -> bool:
        """Takes one retry; False where none is left."""
        self._refill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refill(self) -> None:
        now = self._clock()
        if self._tokens < _RESERVE:
            self._tokens = min(_RESERVE, self._tokens + (now - self._at) * _RESERVE_PER_S)
        self._at = now
