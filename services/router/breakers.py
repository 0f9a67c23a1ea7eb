"""Circuit breakers: a pair of instances whose hand-offs fail is left alone until one succeeds.

The pattern is that of Nygard (Release It!, 2007, chapter 5), with one breaker a pair: an instance
may be well, and reachable from all others but one.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Container, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

# Incarnations of a prefill and a decode instance.
Pair: TypeAlias = tuple[str, str]

# More pairs than any fleet uses; beyond it the oldest is forgotten, which is to say closed.
_MAX_PAIRS = 1 << 16
# Each opening in a row doubles the cooldown, so many times at most.
_MOST_DOUBLINGS = 5
# Share of the cooldown that chance adds, so that several routers do not try a pair all at once.
_JITTER = 0.5


class BreakerState(StrEnum):
    """Whether a pair is used. Half open, it waits for a canary, which decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class _Breaker:
    """`failures` in a row, `openings` since a request's own hand-off last succeeded.

    `retry_at` is when a canary may try the pair; None while it is closed.
    """

    failures: int = 0
    openings: int = 0
    retry_at: float | None = None


class Breakers:
    """One breaker a pair: `failures` failed hand-offs in a row open it, at first for `cooldown_s`.

    A canary's success closes it on probation: the next failure opens it again, for longer, until
    a hand-off of a request has succeeded. So a link that only carries little things, or works every
    other time, is tried ever more seldom. While a breaker is open, hand-offs that began before say
    nothing. Pairs that never failed cost nothing.
    """

    def __init__(
        self,
        failures: int,
        cooldown_s: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limit = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._chance = chance
        self._breakers: dict[Pair, _Breaker] = {}
        self._open: set[Pair] = set()

    def __len__(self) -> int:
        """How many pairs are remembered: those that failed since they last succeeded."""
        return len(self._breakers)

    def open_pairs(self) -> Set[Pair]:
        """The pairs that no request may use now, half-open ones among them; seldom any."""
        return self._open

    def state(self, prefill: str, decode: str) -> BreakerState:
        """Of one pair, by incarnation."""
        breaker = self._breakers.get((prefill, decode))
        return BreakerState.CLOSED if breaker is None else self._state(breaker)

    def count(self) -> Counter[BreakerState]:
        """How many pairs are open and half open; callable from any thread."""
        return Counter(
            state
            for breaker in list(self._breakers.values())
            if (state := self._state(breaker)) is not BreakerState.CLOSED
        )

    def due(self) -> list[Pair]:
        """The half-open pairs, in the order in which they became so."""
        now = self._clock()
        waiting = {pair: self._breakers[pair].retry_at or 0.0 for pair in self._open}
        due = [pair for pair, retry_at in waiting.items() if retry_at <= now]
        return sorted(due, key=waiting.__getitem__)

    def succeeded(self, prefill: str, decode: str) -> None:
        """KV has landed."""
        if (prefill, decode) not in self._open:
            self._breakers.pop((prefill, decode), None)

    def failed(self, prefill: str, decode: str) -> None:
        """A hand-off failed, and not because an instance is gone or has too much to do."""
        pair = prefill, decode
        if pair in self._open:
            return
        breaker = self._breakers.get(pair) or self._begin(pair)
        breaker.failures += 1
        if breaker.failures >= self._limit:
            self._trip(pair, breaker)

    def passed(self, prefill: str, decode: str) -> None:
        """The canary of a half-open pair has got through."""
        if breaker := self._tried(prefill, decode):
            breaker.retry_at = None
            breaker.failures = self._limit - 1
            self._open.discard((prefill, decode))

    def refused(self, prefill: str, decode: str) -> None:
        """The canary of a half-open pair has failed."""
        if breaker := self._tried(prefill, decode):
            self._trip((prefill, decode), breaker)

    def undecided(self, prefill: str, decode: str) -> None:
        """The canary of a half-open pair told nothing: it is tried again after another cooldown."""
        if breaker := self._tried(prefill, decode):
            breaker.retry_at = self._clock() + self._rest_s(breaker)

    def keep(self, incarnations: Container[str]) -> None:
        """Forgets the pairs of all other instances."""
        gone = [pair for pair in self._breakers if not all(each in incarnations for each in pair)]
        for pair in gone:
            self._forget(pair)

    def _state(self, breaker: _Breaker) -> BreakerState:
        retry_at = breaker.retry_at
        if retry_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < retry_at else BreakerState.HALF_OPEN

    def _tried(self, prefill: str, decode: str) -> _Breaker | None:
        """The breaker that a canary decides on; None where it is not half open any more."""
        breaker = self._breakers.get((prefill, decode))
        half_open = breaker and self._state(breaker) is BreakerState.HALF_OPEN
        return breaker if half_open else None

    def _begin(self, pair: Pair) -> _Breaker:
        if len(self._breakers) >= _MAX_PAIRS:
            self._forget(next(iter(self._breakers)))
        breaker = self._breakers[pair] = _Breaker()
        return breaker

    def _trip(self, pair: Pair, breaker: _Breaker) -> None:
        breaker.openings += 1
        breaker.retry_at = self._clock() + self._rest_s(breaker)
        self._open.add(pair)

    def _rest_s(self, breaker: _Breaker) -> float:
        growth = 1 << min(breaker.openings - 1, _MOST_DOUBLINGS)
        return self._cooldown_s * growth * (1 + _JITTER * self._chance())

    def _forget(self, pair: Pair) -> None:
        del self._breakers[pair]
        self._open.discard(pair)
