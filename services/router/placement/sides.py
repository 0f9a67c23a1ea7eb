"""The instances of one phase that a request may go to, and what they have cached of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdserve.cluster.instance import Role
from services.router.knowledge import Knowledge
from services.router.placement.columns import Columns, Rows, layouts_in
from services.router.placer import PlacementRequest
from services.router.view import Candidate


@dataclass(frozen=True, slots=True)
class Side:
    """Candidates, and in their order their rows, their slots and their cached tokens `[n]`."""

    candidates: Sequence[Candidate]
    rows: Rows
    slots: NDArray[np.intp]
    cached: NDArray[np.float64]

    def only(self, index: NDArray[np.intp]) -> "Side":
        """Some of the candidates."""
        return Side(
            [self.candidates[each] for each in index],
            self.rows.only(index),
            self.slots[index],
            self.cached[index],
        )


class Sides:
    """Makes the side of each role."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._prefixes = knowledge.prefixes
        self._slots = {
            Role.PREFILL: knowledge.links.prefills,
            Role.DECODE: knowledge.links.decodes,
        }
        self._columns = {role: Columns(slots) for role, slots in self._slots.items()}

    def side(self, role: Role, request: PlacementRequest, candidates: Sequence[Candidate]) -> Side:
        """`candidates`, or those of them on which the request has not failed yet if there are any.

        Only instances that have joined the knowledge may be among them.
        """
        if request.exclusions:
            fresh = [each for each in candidates if each.incarnation not in request.exclusions]
            candidates = fresh or candidates
        rows, slots = self._columns[role].rows(candidates)
        return Side(candidates, rows, slots, self._cached(role, request, rows, slots))

    def _cached(
        self, role: Role, request: PlacementRequest, rows: Rows, slots: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        cached = np.zeros(len(rows))
        layouts = self._columns[role].layouts()
        for number in layouts_in(rows):
            layout = layouts[number]
            blocks = self._prefixes[role].leading_blocks(request.block_names(layout))
            if blocks:
                by_slot = np.zeros(self._slots[role].bound)
                by_slot[[*blocks]] = [*blocks.values()]
                tokens = by_slot[slots] * layout.block_size
                cached = np.where(rows["layout"] == number, tokens, cached)
        # The last token is always computed: its logits are wanted.
        return np.minimum(cached, request.tokens - 1)
