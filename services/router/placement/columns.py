"""The candidates of one phase as columns of numbers, kept from one decision to the next.

With hundreds of instances a decision is arithmetic on arrays. Candidates are immutable, so that
only the rows of those that have changed since are written anew.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdserve.kv.layout import KvLayout
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from services.router.placement.slots import Slots
from services.router.view import Candidate

Rows = NDArray[np.void]

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
_BATCH_TOKENS = 2048
_UNBOUNDED = 1e12

_ROW = np.dtype(
    [
        ("reported_at", "f8"),
        # Work by priority, from the highest down to and with each: tokens, squares.
        ("reported", "f8", (3, 2)),
        ("dispatched", "f8", (3, 2)),
        ("decoding", "f8"),
        ("context", "f8"),
        ("waiting", "f8"),
        ("free", "f8"),
        ("tpot_limit", "f8"),
        ("batch_tokens", "f8"),
        ("batch_seqs", "f8"),
        ("layer_groups", "f8"),
        ("layout", "i8"),
        ("block_size", "f8"),
        ("token_bytes", "f8"),
        ("known", "?"),
        # The fields of InstanceCost, line by line.
        ("prefill", "f8", 3),
        ("decode", "f8", 3),
        ("decode_large", "f8", 3),
        ("large_from", "f8"),
        ("pp", "f8"),
        ("prefill_stage", "f8"),
        ("dispatch", "f8", 2),
    ]
)


class Columns:
    """One row for each slot that was ever seen."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._table = np.zeros(16, _ROW)
        self._written: list[Candidate | None] = [None] * 16
        self._layouts: dict[KvLayout, int] = {}
        self._typical = GUESS

    def rows(self, candidates: Sequence[Candidate]) -> tuple[Rows, NDArray[np.intp]]:
        """The rows of `candidates` in their order, a copy, and their slots."""
        slots = [self._slots[each.incarnation] for each in candidates]
        if self._slots.bound > len(self._table):
            self._grow(2 * self._slots.bound)
        for slot, candidate in zip(slots, candidates, strict=True):
            if self._written[slot] is not candidate:
                self._write(slot, candidate)
        index = np.array(slots, dtype=np.intp)
        return self._table[index], index

    def layouts(self) -> Sequence[KvLayout]:
        """Every layout that was seen, by the number in the column `layout`."""
        return list(self._layouts)

    def _grow(self, capacity: int) -> None:
        larger = np.zeros(capacity, _ROW)
        larger[: len(self._table)] = self._table
        self._written += [None] * (capacity - len(self._table))
        self._table = larger

    def _write(self, slot: int, candidate: Candidate) -> None:
        if candidate.cost is not None:
            self._typical = candidate.cost
        cost = candidate.cost or self._typical
        load, limits, layout = candidate.load, candidate.limits, candidate.layout
        reported = [(work.tokens, work.squares) for work in load.reported]
        dispatched = [(work.tokens, work.squares) for work in load.dispatched]
        self._table[slot] = (
            candidate.reported_at,
            np.cumsum(reported, axis=0),
            np.cumsum(dispatched, axis=0),
            load.decoding,
            load.tokens,
            load.waiting_tokens,
            min(load.free_tokens, _UNBOUNDED),
            load.tpot_limit_s or _UNBOUNDED,
            limits.batch_tokens or _BATCH_TOKENS,
            limits.batch_seqs or _UNBOUNDED,
            limits.layer_groups or 1,
            self._layouts.setdefault(layout, len(self._layouts)),
            layout.block_size,
            layout.token_bytes,
            candidate.cost is not None,
            (cost.prefill.base_s, cost.prefill.per_token_s, cost.prefill.per_square_s),
            _line(cost.decode),
            _line(cost.decode_large),
            cost.large_from,
            cost.pp,
            cost.prefill_stage_s,
            (cost.dispatch.base_s, cost.dispatch.per_token_s),
        )
        self._written[slot] = candidate


def _line(cost: DecodeCost) -> tuple[float, float, float]:
    return cost.base_s, cost.per_context_token_s, cost.per_sequence_s


def costs(rows: Rows) -> Any:
    """The rows as one `InstanceCost` whose numbers are arrays: `pdserve.latency.cost` takes it."""
    prefill, dispatch = rows["prefill"], rows["dispatch"]
    return SimpleNamespace(
        prefill=SimpleNamespace(
            base_s=prefill[:, 0], per_token_s=prefill[:, 1], per_square_s=prefill[:, 2]
        ),
        pp=rows["pp"],
        prefill_stage_s=rows["prefill_stage"],
        dispatch=SimpleNamespace(base_s=dispatch[:, 0], per_token_s=dispatch[:, 1]),
    )


def decode_lines(rows: Rows, batch: NDArray[np.float64]) -> Any:
    """The `DecodeCost` that holds for each row's batch, with arrays for numbers."""
    large = batch >= rows["large_from"] * rows["pp"]
    line = np.where(large[:, None], rows["decode_large"], rows["decode"])
    return SimpleNamespace(
        base_s=line[:, 0], per_context_token_s=line[:, 1], per_sequence_s=line[:, 2]
    )
