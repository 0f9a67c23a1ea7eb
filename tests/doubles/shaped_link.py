"""Links whose bytes move as slowly, or as badly, as a test says; what is below them is real."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from pdserve.errors import TransferError
from pdserve.kv.backend import Backend, Link, Transmission
from pdserve.kv.store import Store
from tests.doubles.holds import Holds


class Wire:
    """What all links of one process share: how fast bytes move, and whether they do.

    `bytes_per_s` 0 is as fast as it goes. Changes hold at once, also for what is under way.
    """

    def __init__(self, bytes_per_s: float = 0.0) -> None:
        self._changed = threading.Condition()
        self._changes = 0
        self._bytes_per_s = bytes_per_s
        self._stalled = False
        self._cuts = 0
        # When the bytes that have been let through so far have all moved.
        self._free_at = 0.0

    @property
    def cuts(self) -> int:
        """How often links were cut: one that is older than the last cut is dead."""
        return self._cuts

    def throttle(self, bytes_per_s: float) -> None:
        """From now on so many bytes a second move, over all links together; 0: no limit."""
        with self._changing():
            self._bytes_per_s = bytes_per_s
            self._free_at = 0.0

    def stall(self) -> None:
        """Nothing moves until `resume`; links stay open."""
        with self._changing():
            self._stalled = True

    def resume(self) -> None:
        """Ends `stall`."""
        with self._changing():
            self._stalled = False

    def cut(self) -> None:
        """Every link that there is fails where it is used next; new ones are whole."""
        with self._changing():
            self._cuts += 1

    def carry(self, size: int, born: int, timeout_s: float) -> None:
        """Returns when `size` bytes have had their time on the wire.

        `born` is `cuts` as it was when the link was made. Raises `TransferError` for a link that
        was cut, and when it takes more than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._cuts == born:
                now, seen = time.monotonic(), self._changes
                if not self._stalled and not self._bytes_per_s:
                    return
                moved_at = math.inf if self._stalled else self._queue(size, now)
                left_s = max(0.0, min(moved_at, deadline) - now)
                if self._changed.wait_for(lambda seen=seen: self._changes > seen, left_s):
                    continue  # from the start, as things are now
                if moved_at <= deadline:
                    return
                raise TransferError(f"{size} bytes did not move within {timeout_s:g} s")
        raise TransferError("the link was cut")

    def _queue(self, size: int, now: float) -> float:
        """When `size` bytes will have moved behind those that are on their way."""
        self._free_at = max(self._free_at, now) + size / self._bytes_per_s
        return self._free_at

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changes += 1
            self._changed.notify_all()


class ShapedLink:
    """A link over `wire`; reaches the stages "sending" and "receiving" before bytes move.

    Transmissions begin where they are waited for, one after the other, as they do on a wire.
    """

    def __init__(self, link: Link, wire: Wire, holds: Holds, timeout_s: float) -> None:
        self.staging = link.staging
        self._link = link
        self._wire = wire
        self._born = wire.cuts
        self._holds = holds
        self._timeout_s = timeout_s

    def stream(self) -> AbstractContextManager[object]:
        """See `Link.stream`."""
        return self._link.stream()

    def wait_for(self, mark: object) -> None:
        """See `Link.wait_for`."""
        self._link.wait_for(mark)

    def synchronize(self) -> None:
        """See `Link.synchronize`."""
        self._link.synchronize()

    def send(self, data: torch.Tensor) -> Transmission:
        """See `Link.send`."""
        return _Shaped(lambda: self._move("sending", data, self._link.send))

    def recv(self, data: torch.Tensor) -> Transmission:
        """See `Link.recv`."""
        return _Shaped(lambda: self._move("receiving", data, self._link.recv))

    def close(self) -> None:
        """See `Link.close`."""
        self._link.close()

    def _move(
        self, stage: str, data: torch.Tensor, start: Callable[[torch.Tensor], Transmission]
    ) -> None:
        self._holds.reach(stage)
        self._wire.carry(data.numel(), self._born, self._timeout_s)
        start(data).wait()


class _Shaped:
    """A transmission that is `move`."""

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move

    def wait(self) -> None:
        """See `Transmission.wait`."""
        self._move()


class ShapedBackend:
    """Makes links over `wire` of those that `backend` makes."""

    def __init__(self, backend: Backend, wire: Wire, holds: Holds, timeout_s: float) -> None:
        self._backend = backend
        self._wire = wire
        self._holds = holds
        self._timeout_s = timeout_s

    def connect(self, store: Store, rank: int) -> Link:
        """See `Backend.connect`."""
        link = self._backend.connect(store, rank)
        return ShapedLink(link, self._wire, self._holds, self._timeout_s)
