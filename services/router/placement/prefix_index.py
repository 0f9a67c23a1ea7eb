"""Which instance holds which KV blocks in its prefix cache, as the instances report it.

A block is known by eight bytes of its hash: the router keeps no tokens and no text. The blocks of a
prompt form a chain, so that how much of it an instance holds is found by walking the chain once for
all instances, each of which is a bit.
"""

from collections.abc import Iterable, Sequence

from services.router.placement.slots import Slots

# Blocks of all instances together; about 100 bytes each.
MAX_ENTRIES = 1 << 20


class PrefixIndex:
    """The reported blocks of one phase's instances, of `max_entries` at most.

    Where there are more, the blocks that were reported last are not taken in: a hit that is not
    known costs a prefill that was expected anyway.
    """

    def __init__(self, slots: Slots, max_entries: int = MAX_ENTRIES) -> None:
        self._slots = slots
        self._max_entries = max_entries
        self._entries = 0
        self._holders: dict[int, int] = {}
        self._held: dict[str, set[int]] = {}

    def __len__(self) -> int:
        return self._entries

    def reset(self, incarnation: str) -> None:
        """The instance holds nothing, or is about to leave its slot."""
        self.remove(incarnation, [*self._held.pop(incarnation, ())])

    def add(self, incarnation: str, names: Iterable[int]) -> None:
        """The instance holds these blocks now."""
        held = self._held.setdefault(incarnation, set())
        bit = 1 << self._slots[incarnation]
        for name in names:
            if self._entries >= self._max_entries:
                return
            if name not in held:
                held.add(name)
                self._holders[name] = self._holders.get(name, 0) | bit
                self._entries += 1

    def remove(self, incarnation: str, names: Iterable[int]) -> None:
        """The instance holds these blocks no longer."""
        held = self._held.get(incarnation, set())
        bit = 1 << self._slots[incarnation]
        for name in names:
            held.discard(name)
            holders = self._holders.get(name, 0)
            if holders & bit:
                self._entries -= 1
                if holders == bit:
                    del self._holders[name]
                else:
                    self._holders[name] = holders & ~bit

    def leading_blocks(self, names: Sequence[int]) -> dict[int, int]:
        """By slot, how many leading blocks of a chain an instance holds; none where it is 0."""
        depths: dict[int, int] = {}
        before = -1
        for depth, name in enumerate(names):
            holders = before & self._holders.get(name, 0)
            if holders != before:
                if depth:
                    _note(depths, before ^ holders, depth)
                if not holders:
                    return depths
            before = holders
        if names:
            _note(depths, before, len(names))
        return depths


def _note(depths: dict[int, int], mask: int, depth: int) -> None:
    """Takes `depth` down for every slot of a mask."""
    while mask:
        lowest = mask & -mask
        depths[lowest.bit_length() - 1] = depth
        mask ^= lowest
