"""Which spans share one attention call: padding wastes work, every call costs some."""

from collections.abc import Sequence
from typing import NamedTuple

# In units of one (query, key) pair, about 1/70 µs a layer for SmolLM2 on two CPU cores:
# fetching a key and its value from the pool costs as much as 8 queries that see it,
_GATHER = 8
# and one more attention call costs as much as this many pairs (about 0.1 ms).
_CALL = 7000


class Extent(NamedTuple):
    """New tokens of a span, and all tokens that its last one sees."""

    queries: int
    keys: int


def group_extents(extents: Sequence[Extent]) -> list[list[int]]:
    """Indices of `extents` in groups that are cheap to pad to their longest members.

    Greedy over the spans from small to large: one joins the group at hand when padding costs less
    than a call of its own.
    """
    groups: list[list[int]] = []
    current = Extent(0, 0)
    for index in sorted(range(len(extents)), key=extents.__getitem__):
        alone = extents[index]
        joint = Extent(max(current.queries, alone.queries), max(current.keys, alone.keys))
        if groups and _joining_pays(len(groups[-1]), current, alone, joint):
            groups[-1].append(index)
            current = joint
        else:
            groups.append([index])
            current = alone
    return groups


def _joining_pays(members: int, current: Extent, alone: Extent, joint: Extent) -> bool:
    apart = members * _cost(current) + _cost(alone) + _CALL
    return (members + 1) * _cost(joint) <= apart


def _cost(extent: Extent) -> int:
    return extent.keys * (extent.queries + _GATHER)
