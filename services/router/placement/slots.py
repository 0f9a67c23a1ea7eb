"""Small dense numbers for instances, so that what is known of them fits into arrays."""

from collections.abc import Iterable, Sequence


class Slots:
    """Gives each incarnation the lowest number that no other has."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, incarnation: str) -> bool:
        return incarnation in self._slots

    def __getitem__(self, incarnation: str) -> int:
        return self._slots[incarnation]

    def of(self, incarnations: Iterable[str]) -> Sequence[int]:
        """The number of each."""
        return list(map(self._slots.__getitem__, incarnations))

    @property
    def bound(self) -> int:
        """All numbers that were ever given are below it."""
        return self._next

    def items(self) -> list[tuple[str, int]]:
        """Every incarnation with its number."""
        return list(self._slots.items())

    def take(self, incarnation: str) -> int:
        """A number for a new incarnation."""
        slot = self._free.pop() if self._free else self._next
        self._next = max(self._next, slot + 1)
        self._slots[incarnation] = slot
        return slot

    def give_back(self, incarnation: str) -> int:
        """The number, which another may have from now on."""
        slot = self._slots.pop(incarnation)
        self._free.append(slot)
        return slot
