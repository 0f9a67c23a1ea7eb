"""A limit of rate: what may be used refills steadily, and bursts are as large as the bucket."""

from collections.abc import Callable

# Less than so much refill short is enough: else rounding could make somebody wait twice.
_ROUNDING_S = 1e-3


class TokenBucket:
    """Holds what a minute may use, and refills within a minute; full at first.

    `clock` tells seconds. What is taken may exceed what there is: a debt, which refills first.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = per_minute
        self._settled = clock()

    @property
    def level(self) -> float:
        """What may be used now; negative in debt."""
        self._settle()
        return self._level

    @property
    def refill_s(self) -> float:
        """Seconds until the bucket is full."""
        return (self.per_minute - self.level) / self._per_s

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be taken, 0 where it may be now.

        More than a full bucket may be taken from a full one: no request is too large for ever.
        """
        missing_s = (min(amount, self.per_minute) - self.level) / self._per_s
        return missing_s if missing_s > _ROUNDING_S else 0.0

    def take(self, amount: float) -> None:
        """Uses `amount`; less than nothing gives back."""
        self._level = min(self.level - amount, self.per_minute)

    def change(self, per_minute: float) -> None:
        """Goes on with another rate and what is left, as far as the new bucket holds it."""
        self._level = min(self.level, per_minute)
        self.per_minute = per_minute

    @property
    def _per_s(self) -> float:
        return self.per_minute / 60.0

    def _settle(self) -> None:
        now = self._clock()
        refilled = (now - self._settled) * self._per_s
        self._level = min(self._level + refilled, self.per_minute)
        self._settled = now
