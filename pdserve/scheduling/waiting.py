"""The order of waiting requests: earliest deadline first, by class, and nobody starves.

Earliest deadline first meets all deadlines where any order does (Dertouzos, IFIP 1974, for work
that may be interrupted), but under overload it fails: what is late already goes first and makes the
next one late. So each request has one virtual deadline, which is fixed when it arrives:

    arrival + time until it is due − head start of its class

- The time until it is due counts from 0 to `HORIZON_S`; without an SLO it is `HORIZON_S`.
- A class is worth `HORIZON_S`: of what arrives together the higher class goes first, whatever the
  deadlines. A head start is no right: what has waited longer comes before a higher class.
- Whoever is found late when its turn comes is moved back by `HORIZON_S`, once: behind those that
  can still be in time, level with what had no SLO and arrived when this one was due.

A virtual deadline lies between one horizon before the arrival and three behind it, so that nothing
is ever overtaken by what arrives more than `OVERTAKEN_S` after it. Requests of one class without
SLOs are served in the order of arrival.
"""

import time
from bisect import bisect_left, insort
from collections.abc import Callable
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

from pdserve.scheduling.urgency import Priority, Urgency

# Longer than most TTFT objectives (DistServe, OSDI 2024, table 1: 0.125 s to 4 s, but 15 s for
# summaries), so that they differ; and a wait that a request without an SLO can bear.
HORIZON_S = 10.0
# Two classes of difference, one horizon until it is due, and one for being late.
OVERTAKEN_S = 4 * HORIZON_S


class Place(NamedTuple):
    """Where a request stands among others: the least goes first. `final`: it will not change."""

    virtual_deadline_s: float
    arrival: int
    final: bool = False

    @staticmethod
    def of(urgency: Urgency, now_s: float, arrival: int) -> "Place":
        """The place of what arrives now as number `arrival`."""
        due_s = now_s + HORIZON_S if urgency.due_s is None else urgency.due_s
        due_in_s = min(max(due_s - now_s, 0.0), HORIZON_S)
        head_start_s = (urgency.priority - Priority.NORMAL) * HORIZON_S
        return Place(now_s + due_in_s - head_start_s, arrival, urgency.due_s is None)

    def demoted(self) -> "Place":
        """The place of what is late."""
        return Place(self.virtual_deadline_s + HORIZON_S, self.arrival, final=True)


NOWHERE = Place(0.0, 0)


class Waiter(Protocol):
    """What the queue must know of a request; `place` is the queue's own mark on it."""

    @property
    def urgency(self) -> Urgency:
        """How urgent it is."""
        ...

    place: Place


W = TypeVar("W", bound=Waiter)
by_place = attrgetter("place")


class WaitingQueue(Generic[W]):
    """Requests that wait, in the order of their places; times are those of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queue: list[W] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._queue)

    def arrive(self, item: W) -> None:
        """Gives a new request its place."""
        self._arrivals += 1
        item.place = Place.of(item.urgency, self._clock(), self._arrivals)
        insort(self._queue, item, key=by_place)

    def put_back(self, item: W) -> None:
        """Queues what had its turn and lost it, at the place that it had."""
        insort(self._queue, item, key=by_place)

    def head(self) -> W:
        """Whose turn it is; whoever turns out to be late is moved back first.

        Nobody else needs to be looked at: being late only moves others further behind the head.
        """
        now_s = self._clock()
        while _late(self._queue[0], now_s):
            item = self._queue.pop(0)
            item.place = item.place.demoted()
            insort(self._queue, item, key=by_place)
        return self._queue[0]

    def pop(self) -> W:
        """Takes what `head` returned: it had its turn in time and is late no more."""
        item = self._queue.pop(0)
        item.place = item.place._replace(final=True)
        return item

    def remove(self, item: W) -> None:
        """Takes a request out, wherever it stands."""
        index = bisect_left(self._queue, item.place, key=by_place)
        assert self._queue[index] is item, "it does not wait here"
        del self._queue[index]


def _late(item: Waiter, now_s: float) -> bool:
    due_s = item.urgency.due_s
    return due_s is not None and due_s <= now_s and not item.place.final
