"""Arrival processes, drawn with a seeded generator."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.workload import Floats

_DEFAULT_RATE = 1.0
# More changes of state than this would take gigabytes before the last request is reached.
_MAX_CYCLES = 10_000_000


class Arrivals(Protocol):
    """A process that requests arrive by."""

    @property
    def default_rate(self) -> float:
        """Requests per second where no rate is asked for."""
        ...

    def draw(self, rng: np.random.Generator, requests: int, rate: float) -> Floats:
        """Seconds from the first request to each, `[requests]`, at `rate` on average."""
        ...


@dataclass(frozen=True, slots=True)
class PoissonArrivals:
    """Independent requests: exponential times between them, CV 1."""

    @property
    def default_rate(self) -> float:
        """One request per second."""
        return _DEFAULT_RATE

    def draw(self, rng: np.random.Generator, requests: int, rate: float) -> Floats:
        """See `Arrivals.draw`."""
        return _from_gaps(rng.exponential(1 / rate, requests - 1))


@dataclass(frozen=True, slots=True)
class GammaArrivals:
    """Gamma-distributed times between requests, with the coefficient of variation `cv`.

    Burstier than Poisson above 1, more regular below. A gamma distribution of shape `k` has a CV of
    `1 / √k`. Raises `ConfigError` unless `cv` is above 0.
    """

    cv: float

    def __post_init__(self) -> None:
        _check_above_zero("cv", self.cv)

    @property
    def default_rate(self) -> float:
        """One request per second."""
        return _DEFAULT_RATE

    def draw(self, rng: np.random.Generator, requests: int, rate: float) -> Floats:
        """See `Arrivals.draw`."""
        square = self.cv * self.cv
        return _from_gaps(rng.gamma(1 / square, square / rate, requests - 1))


@dataclass(frozen=True, slots=True)
class FixedArrivals:
    """Equal times between requests, CV 0."""

    @property
    def default_rate(self) -> float:
        """One request per second."""
        return _DEFAULT_RATE

    def draw(self, rng: np.random.Generator, requests: int, rate: float) -> Floats:  # noqa: ARG002 - as every process
        """See `Arrivals.draw`."""
        return np.arange(requests) / rate


@dataclass(frozen=True, slots=True)
class OnOffArrivals:
    """Bursts: a Poisson process whose rate is `on` for a while, then `off`, and so on.

    The times in the two states are exponential with the means `on_s` and `off_s`: the two-state
    Markov-modulated Poisson process (Fischer and Meier-Hellstern, Performance Evaluation 18, 1993).
    Rates are in requests per second. Asked for another mean rate, both are scaled. Raises
    `ConfigError` for a rate below 0, two rates of 0, or a duration that is not above 0.
    """

    on: float
    off: float
    on_s: float
    off_s: float

    def __post_init__(self) -> None:
        _check_above_zero("on", self.on)
        _check_above_zero("on_s", self.on_s)
        _check_above_zero("off_s", self.off_s)
        if not (self.off >= 0 and np.isfinite(self.off)):
            raise ConfigError(
                f"off is {self.off}; it must be at least 0", field="arrivals", limit=">= 0"
            )

    @property
    def default_rate(self) -> float:
        """The mean of the two rates over time."""
        return (self.on * self.on_s + self.off * self.off_s) / (self.on_s + self.off_s)

    def draw(self, rng: np.random.Generator, requests: int, rate: float) -> Floats:
        """See `Arrivals.draw`.

        A Poisson process of rate 1 in the time `Λ(t) = ∫ rate` is the process wanted in the time
        `t` (time change, as in Çinlar, Introduction to Stochastic Processes, 1975, chapter 4).
        """
        scale = rate / self.default_rate
        due = np.cumsum(rng.exponential(1.0, requests))
        time, intensity = self._states(rng, due[-1] / scale)
        arrivals = np.interp(due, intensity * scale, time)
        return np.maximum.accumulate(arrivals - arrivals[0])

    def _states(self, rng: np.random.Generator, until: float) -> tuple[Floats, Floats]:
        """The times at which the state changes, and Λ there, until Λ reaches `until`."""
        means = np.array([self.on_s, self.off_s])
        rates = np.array([self.on, self.off])
        if rng.random() >= self.on_s / (self.on_s + self.off_s):
            means, rates = means[::-1], rates[::-1]
        time, intensity = np.zeros(1), np.zeros(1)
        while intensity[-1] < until:
            cycles = int((until - intensity[-1]) / float(means @ rates) * 1.1) + 16
            if cycles > _MAX_CYCLES:
                text = f"on_s and off_s are too short: over {_MAX_CYCLES} bursts would be drawn"
                raise ConfigError(text, field="arrivals", limit=str(_MAX_CYCLES))
            durations = rng.exponential(means, (cycles, 2))
            time = np.concatenate((time, time[-1] + np.cumsum(durations)))
            intensity = np.concatenate((intensity, intensity[-1] + np.cumsum(durations * rates)))
        return time, intensity


def _from_gaps(gaps: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(gaps)))


def _check_above_zero(name: str, value: float) -> None:
    if not (value > 0 and np.isfinite(value)):
        raise ConfigError(f"{name} is {value}; it must be above 0", field="arrivals", limit="> 0")
