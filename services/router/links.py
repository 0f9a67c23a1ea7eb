"""How fast KV moves from each prefill to each decode instance, as measured by the hand-offs.

A bandwidth is Σ bytes / Σ seconds over the transfers of a pair, in which each counts half after
every half-life, together with a small transfer at the speed that the distance of the two lets
expect. So a pair that nobody has used goes by that expectation, a few transfers overrule it, and
what was measured long ago is forgotten.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdserve.cluster.instance import Role
from pdserve.cluster.topology import Distance, Topology
from services.router.placement.slots import Slots

Floats = NDArray[np.float64]
Slot = NDArray[np.intp]

# What the expectation weighs: less than the KV of a hundred tokens of most models.
_PRIOR_BYTES = 1 << 20
_FIRST_CAPACITY = 16
# What is kept of a pair: the evidence as of a moment, the expectation, the bytes under way, and how
# many transfers there were, which no estimate needs.
_BYTES, _SECONDS, _AT, _PRIOR, _IN_FLIGHT, _TRANSFERS = range(6)
_KEPT = 6


@dataclass(frozen=True, slots=True)
class LinkState:
    """One pair of instances, by incarnation; `age_s` is since the last measured transfer."""

    prefill: str
    decode: str
    distance: Distance
    bytes_per_s: float
    transfers: int
    age_s: float


@dataclass(frozen=True, slots=True)
class LinkEstimates:
    """Matrices `[prefill, decode]`: bytes per second, and bytes under way."""

    bytes_per_s: Floats
    in_flight_bytes: Floats


class Links:
    """The pairs of all instances that have joined. `priors` are bytes per second by distance."""

    def __init__(
        self,
        priors: Mapping[Distance, float],
        half_life_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._priors = priors
        self._half_life_s = half_life_s
        self._clock = clock
        self._places: dict[str, Topology] = {}
        self.prefills = Slots()
        self.decodes = Slots()
        self._pairs = np.zeros((_KEPT, _FIRST_CAPACITY, _FIRST_CAPACITY))

    def join(self, role: Role, incarnation: str, place: Topology) -> None:
        """Makes the pairs of an instance that has been found."""
        self._places[incarnation] = place
        if role is Role.PREFILL:
            slot = self.prefills.take(incarnation)
            self._grow()
            for other, column in self.decodes.items():
                self._clear(slot, column, place.distance(self._places[other]))
        else:
            slot = self.decodes.take(incarnation)
            self._grow()
            for other, row in self.prefills.items():
                self._clear(row, slot, self._places[other].distance(place))

    def leave(self, role: Role, incarnation: str) -> None:
        """Forgets the pairs of an instance that is gone."""
        del self._places[incarnation]
        (self.prefills if role is Role.PREFILL else self.decodes).give_back(incarnation)

    def observe(self, prefill: str, decode: str, size_bytes: int, seconds: float) -> None:
        """Counts a transfer that took so long on its way; pairs that are gone do not count."""
        pair = self._pair(prefill, decode)
        if pair is None or size_bytes <= 0 or seconds <= 0:
            return
        now = self._clock()
        link = self._pairs[:, pair[0], pair[1]]
        kept = 0.5 ** ((now - link[_AT]) / self._half_life_s)
        link[_BYTES] = link[_BYTES] * kept + size_bytes
        link[_SECONDS] = link[_SECONDS] * kept + seconds
        link[_AT] = now
        link[_TRANSFERS] += 1

    @contextmanager
    def in_flight(self, prefill: str, decode: str, size_bytes: float) -> Iterator[None]:
        """Counts bytes as under way as long as the context lasts."""
        pair = self._pair(prefill, decode)
        if pair is None:
            yield
            return
        self._pairs[_IN_FLIGHT][pair] += size_bytes
        try:
            yield
        finally:
            # Another pair may have taken the place, or the same one have begun anew.
            if pair == self._pair(prefill, decode):
                left = self._pairs[_IN_FLIGHT][pair] - size_bytes
                self._pairs[_IN_FLIGHT][pair] = max(0.0, left)

    def estimates(self, prefills: Slot, decodes: Slot) -> LinkEstimates:
        """What is expected now between the instances with these slots."""
        # One axis after the other: faster than both at once.
        links = self._pairs[:_TRANSFERS].take(prefills, axis=1).take(decodes, axis=2)
        kept = np.exp2((links[_AT] - self._clock()) / self._half_life_s)
        seconds = _PRIOR_BYTES / links[_PRIOR] + links[_SECONDS] * kept
        bytes_per_s = (_PRIOR_BYTES + links[_BYTES] * kept) / seconds
        return LinkEstimates(bytes_per_s, links[_IN_FLIGHT])

    def idle_pairs(self, older_than_s: float, limit: int = 64) -> list[tuple[str, str]]:
        """At most `limit` pairs that nobody has measured for so long: those that never were first,
        the near ones before the far ones, then those measured longest ago.
        """
        links = self._present()
        idle = (links[_TRANSFERS] == 0) | (self._clock() - links[_AT] >= older_than_s)
        rows, columns = np.nonzero(idle)
        order = np.lexsort((-links[_PRIOR][idle], links[_AT][idle]))[:limit]
        return [self._names(int(rows[each]), int(columns[each])) for each in order]

    def states(self, limit: int) -> list[LinkState]:
        """At most `limit` pairs over which KV has moved."""
        rows, columns = np.nonzero(self._present()[_TRANSFERS])
        count = min(len(rows), limit)
        pairs = [self._names(int(rows[each]), int(columns[each])) for each in range(count)]
        return [self.state(*pair) for pair in pairs]

    def state(self, prefill: str, decode: str) -> LinkState:
        """One pair of instances that are there."""
        row, column = self.prefills[prefill], self.decodes[decode]
        link = self._pairs[:, row, column]
        estimate = self.estimates(np.array([row]), np.array([column]))
        return LinkState(
            prefill=prefill,
            decode=decode,
            distance=self._places[prefill].distance(self._places[decode]),
            bytes_per_s=float(estimate.bytes_per_s[0, 0]),
            transfers=int(link[_TRANSFERS]),
            age_s=self._clock() - float(link[_AT]) if link[_TRANSFERS] else 0.0,
        )

    def _present(self) -> Floats:
        """The pairs of the instances that are there, in the order of `items`."""
        rows = np.array([slot for _, slot in self.prefills.items()], dtype=np.intp)
        columns = np.array([slot for _, slot in self.decodes.items()], dtype=np.intp)
        return self._pairs[:, rows[:, None], columns]

    def _names(self, row: int, column: int) -> tuple[str, str]:
        return self.prefills.items()[row][0], self.decodes.items()[column][0]

    def _pair(self, prefill: str, decode: str) -> tuple[int, int] | None:
        if prefill not in self.prefills or decode not in self.decodes:
            return None
        return self.prefills[prefill], self.decodes[decode]

    def _clear(self, row: int, column: int, distance: Distance) -> None:
        self._pairs[:, row, column] = 0.0
        self._pairs[_PRIOR, row, column] = self._priors[distance]

    def _grow(self) -> None:
        """Makes room for the highest slots."""
        _, rows, columns = self._pairs.shape
        wanted = (_KEPT, _capacity(rows, self.prefills), _capacity(columns, self.decodes))
        if wanted != self._pairs.shape:
            larger = np.zeros(wanted)
            larger[:, :rows, :columns] = self._pairs
            self._pairs = larger


def _capacity(present: int, slots: Slots) -> int:
    return present if slots.bound <= present else max(2 * present, slots.bound)
