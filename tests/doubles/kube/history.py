"""What happened to the objects of one resource, as far back as is remembered."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.doubles.kube.errors import too_old


@dataclass(frozen=True, slots=True)
class Change:
    """One object came, changed or went, at a version of the store."""

    version: int
    # Before is None for an object that is new, after for one that is gone.
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(slots=True, eq=False)
class Reader:
    """One watch's place in a history; each change sets `woken`."""

    version: int
    woken: asyncio.Event


class History:
    """The latest changes of one resource, oldest first."""

    def __init__(self, limit: int) -> None:
        self._changes: deque[Change] = deque()
        self._limit = limit
        self._floor = 0
        self._readers: set[Reader] = set()

    def record(self, change: Change) -> None:
        """Adds a change; the oldest is forgotten where there are too many."""
        if len(self._changes) == self._limit:
            self._floor = self._changes.popleft().version
        self._changes.append(change)
        for reader in self._readers:
            reader.woken.set()

    @contextmanager
    def reader(self, version: int, woken: asyncio.Event) -> Iterator[Reader]:
        """A reader of what happens after that version.

        Raises ApiError (410) where that is not remembered any more.
        """
        self.check(version)
        reader = Reader(version, woken)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def read(self, reader: Reader) -> list[Change]:
        """What happened since the reader read last; raises ApiError (410) if it is too late."""
        unread = self._unread(reader)
        if unread:
            reader.version = unread[-1].version
        return unread

    def check(self, version: int) -> None:
        """Raises ApiError (410) where nobody can watch from that version any more."""
        if version < self._floor:
            raise too_old(version, self._floor)

    def forget(self, version: int) -> None:
        """Remembers nothing up to that version; readers that are up to date stay so."""
        for reader in self._readers:
            if not self._unread(reader):
                reader.version = version
        self._changes.clear()
        self._floor = version

    def _unread(self, reader: Reader) -> list[Change]:
        self.check(reader.version)
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.version <= reader.version:
                break
            found.append(change)
        return found[::-1]
