"""How soon running requests end, as the ones before them did."""

# A request counts for so much of the mean, so that it is one of the last few dozen.
_WEIGHT = 1 / 32
# Until any has ended.
_GUESS_S = 1.0


class Pace:
    """The mean time that requests run, and what follows from it by Little's law."""

    def __init__(self) -> None:
        self._mean_s: float | None = None

    def ended(self, run_s: float) -> None:
        """A request has run for `run_s`."""
        if self._mean_s is None:
            self._mean_s = run_s
        else:
            self._mean_s += (run_s - self._mean_s) * _WEIGHT

    def wait_s(self, ends: int, running: int) -> float:
        """Seconds until `ends` requests have ended, where `running` always run."""
        mean_s = _GUESS_S if self._mean_s is None else self._mean_s
        return mean_s * ends / max(running, 1)
