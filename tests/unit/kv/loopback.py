"""A link without a peer, whose transmissions the test completes or fails."""

import threading
from contextlib import nullcontext

import torch

from pdserve.errors import TransferError
from pdserve.kv.backend import Staging


class Loopback:
    """`allow` lets that many transmissions complete; the one numbered `broken` fails."""

    def __init__(self, broken: int = 0) -> None:
        self.staging = Staging(torch.device("cpu"))
        self.closed = threading.Event()
        self._broken = broken
        self._started = 0
        self._allowed = threading.Semaphore(0)

    def allow(self, count: int) -> None:
        self._allowed.release(count)

    def stream(self):
        return nullcontext()

    def wait_for(self, mark):
        pass

    def synchronize(self):
        pass

    def send(self, data):
        self._started += 1
        return _Transmission(self._allowed, fails=self._started == self._broken)

    recv = send

    def close(self):
        self.closed.set()


class _Transmission:
    def __init__(self, allowed, *, fails):
        self._allowed = allowed
        self._fails = fails

    def wait(self):
        if not self._allowed.acquire(timeout=10):
            raise TransferError("never allowed")
        if self._fails:
            raise TransferError("the wire broke")


class Note:
    """A job that notes what becomes of it."""

    def __init__(self, name, notes, wanted=True):
        self.name = name
        self.wanted = wanted
        self._notes = notes
        self._transmission = None

    def begin(self, link, seq):
        if not self.wanted:
            self._notes.append(("skipped", self.name))
            return False
        self._notes.append(("begun", self.name, seq))
        self._transmission = link.send(link.staging.buffer(seq, 8))
        return True

    def end(self):
        self._transmission.wait()
        self._notes.append(("ended", self.name))

    def fail(self, error):
        self._notes.append(("failed", self.name, str(error)))
