"""Files that are read again when they change, such as keys and certificates that are rotated."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pdserve.errors import ConfigError

log = logging.getLogger(__name__)

_POLL_S = 1.0

T = TypeVar("T")


class FollowedFiles(Generic[T]):
    """What `read` makes of the files at `paths`; `value` is the newest that could be read.

    `problem` says why what is there now could not be; empty: it could. `what` is their name in the
    log. Raises what `read` raises where they cannot be read at first.
    """

    def __init__(self, what: str, paths: Sequence[Path], read: Callable[[], T]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        # The stamps of what `value` was read from, and of what was last complained of.
        self._taken = self._refused = self._look()
        self.value = read()
        self.problem = ""

    async def follow(self) -> None:
        """Takes over what changes, within a second or so, until it is cancelled."""
        async for _ in self.values():
            pass

    async def values(self) -> AsyncIterator[T]:
        """The value, and each newer one within a second or so of its change; it never ends."""
        yield (value := self.value)
        while True:
            await asyncio.sleep(_POLL_S)
            await asyncio.to_thread(self.refresh)
            if self.value is not value:
                yield (value := self.value)

    def refresh(self) -> None:
        """Reads the files if one has changed.

        Where they cannot be used the value stays, the log says so once, and the next call tries
        again.
        """
        stamps = self._look()
        if stamps == self._taken:
            self.problem = ""
            return
        try:
            value = self._read()
        except ConfigError as error:
            self.problem = str(error)
            if stamps != self._refused:
                # The text alone: its cause could quote the file.
                log.error("%s stay as they were", self._what, extra={"detail": str(error)})
            self._refused = stamps
            return
        # What was replaced while it was read may be half old, half new.
        if self._look() == stamps:
            self._taken, self.value, self.problem = stamps, value, ""
            log.info("%s were read again", self._what)

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does, also when another takes its place; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
