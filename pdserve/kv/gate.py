"""Who may touch a transfer's blocks, and when nobody does any more."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pdserve.kv.promise import Promise


class Gate:
    """Stands between a channel's thread and the blocks of one transfer.

    Bytes travel through staging buffers; blocks are touched only inside `passage`. So a transfer is
    cut off from its blocks as soon as the gate is shut and empty, within one copy, even while a
    send or receive for it hangs on a silent peer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._inside = 0
        self._waiters: list[Promise[None]] = []

    @contextmanager
    def passage(self) -> Iterator[bool]:
        """Yields whether blocks may be touched until the context ends. Called in any thread."""
        with self._lock:
            admitted = self._open
            self._inside += admitted
        try:
            yield admitted
        finally:
            if admitted:
                self._leave()

    def shut(self) -> None:
        """Admits nobody from now on; who is inside finishes."""
        with self._lock:
            self._open = False

    async def settled(self) -> None:
        """Returns once nobody is inside; with the gate shut, nobody will be."""
        if waiter := self._waiter():
            await waiter

    def when_settled(self, action: Callable[[], None]) -> None:
        """Has `action` called once nobody is inside: now, or in the event loop."""
        if waiter := self._waiter():
            waiter.add_done_callback(lambda _: action())
        else:
            action()

    def _waiter(self) -> asyncio.Future[None] | None:
        """Done when all that are inside have left; None: nobody is."""
        with self._lock:
            if not self._inside:
                return None
            waiter = Promise[None](asyncio.get_running_loop())
            self._waiters.append(waiter)
        return waiter.future

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.resolve(None)
