"""The candidates of one phase as columns of numbers, kept from one decision to the next.

With hundreds of instances a decision is arithmetic on arrays. Candidates are immutable, so that
only the rows of those that have changed since are written anew.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from pdserve.kv.layout import KvLayout
from pdserve.latency.cost import (
    DecodeCost,
    InstanceCost,
    PrefillCost,
    decode_line_s,
    prefill_s,
)
from services.router.links import Floats
from services.router.placement.slots import Slots
from services.router.view import Candidate, Works

# What an instance is taken to cost as long as no instance has told: the order of magnitude of a
# small model on one GPU. It ranks by load; nothing is refused by it.
GUESS = InstanceCost(
    tp=1,
    pp=1,
    prefill=PrefillCost(5e-3, 1e-4, 1e-9),
    decode=DecodeCost(1e-2, 1e-7, 1e-4),
    decode_large=DecodeCost(1e-2, 1e-7, 1e-4),
    large_from=1 << 30,
    kv_tokens=1,
)
# Where an instance does not state its budget or its bounds.
BATCH_TOKENS = 2048
_UNBOUNDED = 1e12

# The columns, and how many numbers wide each is. First the load, which changes all the time; from
# `batch_tokens` on, what the instance is.
_WIDTHS = {
    "reported_at": 1,
    # Work by priority, from the highest down to and with each: tokens of each, then squares.
    "reported_tokens": 3,
    "reported_squares": 3,
    "dispatched_tokens": 3,
    "dispatched_squares": 3,
    "decoding": 1,
    "context": 1,
    "waiting": 1,
    "free": 1,
    "tpot_limit": 1,
    "batch_tokens": 1,
    "batch_seqs": 1,
    "layer_groups": 1,
    "layout": 1,
    "block_size": 1,
    "token_bytes": 1,
    # Whether the costs below are known.
    "known": 1,
    # Seconds of a pass: at all, a token and a square; at all, a sequence and a token of context,
    # these also for batches from `large_from` on.
    "prefill": 3,
    "decode": 3,
    "decode_large": 3,
    "large_from": 1,
}
_BEGINS = dict(zip(_WIDTHS, accumulate(_WIDTHS.values(), initial=0), strict=False))
_PLACES = {
    name: begin if _WIDTHS[name] == 1 else slice(begin, begin + _WIDTHS[name])
    for name, begin in _BEGINS.items()
}
_LOAD_WIDTH = _BEGINS["batch_tokens"]
_WIDTH = sum(_WIDTHS.values())


_incarnation = attrgetter("incarnation")


class Rows:
    """Candidates by column: `rows[name]` is `[n]`, or `[width, n]` where it is wider."""

    def __init__(self, numbers: Floats) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return int(self._numbers.shape[1])

    def __getitem__(self, column: str) -> Floats:
        return self._numbers[_PLACES[column]]

    def only(self, index: NDArray[np.intp]) -> "Rows":
        """Some of the candidates, a copy."""
        return Rows(self._numbers.take(index, axis=1))


class Columns:
    """One row for each slot that was ever seen."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._numbers = np.zeros((_WIDTH, 0))
        self._written: list[Candidate | None] = []
        self._layouts: dict[KvLayout, int] = {}
        self._typical = GUESS

    def rows(self, candidates: Sequence[Candidate]) -> tuple[Rows, NDArray[np.intp]]:
        """The rows of `candidates` in their order, a copy, and their slots."""
        if self._slots.bound > len(self._written):
            self._grow(2 * self._slots.bound)
        slots = self._slots.of(map(_incarnation, candidates))
        written = self._written
        changed = [
            (slot, each)
            for slot, each in zip(slots, candidates, strict=True)
            if written[slot] is not each
        ]
        if changed:
            self._write(changed)
        index = np.array(slots, dtype=np.intp)
        return Rows(self._numbers.take(index, axis=1)), index

    def layouts(self) -> Sequence[KvLayout]:
        """Every layout that was seen, by the number in the column `layout`."""
        return list(self._layouts)

    def _grow(self, capacity: int) -> None:
        larger = np.zeros((_WIDTH, capacity))
        larger[:, : len(self._written)] = self._numbers
        self._written += [None] * (capacity - len(self._written))
        self._numbers = larger

    def _write(self, changed: Sequence[tuple[int, Candidate]]) -> None:
        # Most of what comes is another load of the same instance.
        for slot, candidate in changed:
            before = self._written[slot]
            if candidate.cost is not None:
                self._typical = candidate.cost
            if before is None or candidate.cost is None or not _same_nature(before, candidate):
                cost = candidate.cost or self._typical
                self._numbers[_LOAD_WIDTH:, slot] = self._nature(candidate, cost)
            self._written[slot] = candidate
        slots = [slot for slot, _ in changed]
        loads = np.array([_load(candidate) for _, candidate in changed])
        self._numbers[:_LOAD_WIDTH, slots] = loads.T

    def _nature(self, candidate: Candidate, cost: InstanceCost) -> Sequence[float]:
        limits, layout = candidate.limits, candidate.layout
        return (
            limits.batch_tokens or BATCH_TOKENS,
            limits.batch_seqs or _UNBOUNDED,
            limits.layer_groups or 1,
            self._layouts.setdefault(layout, len(self._layouts)),
            layout.block_size,
            layout.token_bytes,
            candidate.cost is not None,
            *_plane(partial(prefill_s, cost)),
            *_plane(partial(decode_line_s, cost.decode, cost)),
            *_plane(partial(decode_line_s, cost.decode_large, cost)),
            cost.large_from * cost.pp,
        )


def _load(candidate: Candidate) -> Sequence[float]:
    load = candidate.load
    return (
        candidate.reported_at,
        *_down_to_each(load.reported),
        *_down_to_each(load.dispatched),
        load.decoding,
        load.tokens,
        load.waiting_tokens,
        min(load.free_tokens, _UNBOUNDED),
        load.tpot_limit_s or _UNBOUNDED,
    )


def _same_nature(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates differ in their load alone."""
    return one.cost is other.cost and one.limits is other.limits and one.layout is other.layout


def _down_to_each(works: Works) -> tuple[float, ...]:
    """Tokens, then squares, of each priority together with those above it."""
    high, normal, low = works
    tokens, squares = high.tokens + normal.tokens, high.squares + normal.squares
    lowest = tokens + low.tokens, squares + low.squares
    return high.tokens, tokens, lowest[0], high.squares, squares, lowest[1]


def _plane(seconds: Callable[[float, float], float]) -> tuple[float, float, float]:
    """What describes a formula of `pdserve.latency.cost`, all of which are linear: at nothing, and
    by how much it grows with each of its two quantities.
    """
    base_s = seconds(0.0, 0.0)
    return base_s, seconds(1.0, 0.0) - base_s, seconds(0.0, 1.0) - base_s


def layouts_in(rows: Rows) -> list[int]:
    """The numbers of the layouts that some row has; nearly always it is one."""
    numbers = rows["layout"]
    first = numbers[0]
    return [int(first)] if (numbers == first).all() else [int(each) for each in set(numbers)]
