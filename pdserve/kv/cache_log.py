"""What the prefix cache gains and loses, for readers that follow it at a pace of their own.

Blocks are told by the first eight bytes of their hashes, as little-endian integers. That two of a
million blocks agree in those by chance has a probability of 3e-8; it would cost a wrong estimate of
how much of one prompt is cached.
"""

import threading
from dataclasses import dataclass

from pdserve.kv.prefix import BlockHash

# Changes that are kept at least, and most of them that one reading returns: 32 KiB of a report.
MIN_LOG = 1 << 14
MAX_READING = 1 << 12


@dataclass(frozen=True, slots=True)
class CacheChange:
    """What changed: forget everything if `reset`, then take out `removed`, then put in `added`.

    A name that is taken out need not have been there, and one that is put in may be there already.
    """

    reset: bool
    added: list[int]
    removed: list[int]

    def __bool__(self) -> bool:
        return bool(self.reset or self.added or self.removed)


class CacheLog:
    """The named blocks of a pool, and the latest changes of them.

    The engine's thread writes and the event loop reads; a lock is held for one entry, one reading
    of at most `MAX_READING` entries, or the copy of all names that begins a reader's reset. Memory
    is bounded by the pool and by `capacity` changes. With as many of these as there are blocks, a
    reader that has just taken all names in is not behind at once.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._present: dict[int, None] = {}  # in the order of their appearance
        # A ring: change number n is entry n modulo capacity, the name and whether it appeared.
        self._ring: list[tuple[int, bool]] = []
        self._changes = 0

    def added(self, name: BlockHash) -> None:
        """A block with this name can be found from now on."""
        short = short_name(name)
        with self._lock:
            self._present[short] = None
            self._write(short, True)

    def removed(self, name: BlockHash) -> None:
        """No block has this name any more."""
        short = short_name(name)
        with self._lock:
            self._present.pop(short, None)
            self._write(short, False)

    def names(self) -> tuple[list[int], int]:
        """The names of all blocks, the latest last, and the number of the next change."""
        with self._lock:
            return list(self._present), self._changes

    def since(self, change: int, limit: int) -> list[tuple[int, bool]] | None:
        """Up to `limit` changes from number `change` on; None when they are no longer known."""
        with self._lock:
            if self._changes - change > len(self._ring):
                return None
            numbers = range(change, min(self._changes, change + limit))
            return [self._ring[number % self._capacity] for number in numbers]

    def _write(self, short: int, appeared: bool) -> None:
        if len(self._ring) < self._capacity:
            self._ring.append((short, appeared))
        else:
            self._ring[self._changes % self._capacity] = (short, appeared)
        self._changes += 1


class CacheReader:
    """One reader's position in a log.

    It reads all names first, the latest first, and then the changes since. A reader that has fallen
    behind the log begins anew.
    """

    def __init__(self, log: CacheLog, limit: int = MAX_READING) -> None:
        self._log = log
        self._limit = limit
        self._names: list[int] = []  # of a reset that has not been read yet
        self._next = -1  # the change to read next; none yet

    def read(self) -> CacheChange:
        """What comes next: at most `limit` names, nothing once the reader has caught up."""
        changes = None if self._next < 0 else self._log.since(self._next, self._limit)
        reset = changes is None
        if changes is None:
            self._names, self._next = self._log.names()
            changes = []
        if reset or self._names:  # all names before what has changed since
            return CacheChange(reset, self._read_names(), [])
        self._next += len(changes)
        latest = dict(changes)
        return CacheChange(
            reset=False,
            added=[name for name, appeared in latest.items() if appeared],
            removed=[name for name, appeared in latest.items() if not appeared],
        )

    def _read_names(self) -> list[int]:
        names = self._names[-self._limit :][::-1]
        del self._names[-self._limit :]
        return names


def short_name(name: BlockHash) -> int:
    """The name of a block as readers are told it."""
    return int.from_bytes(name[:8], "little")
