"""Links between CPUs."""

import re
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist

from pdserve.errors import TransferError
from pdserve.kv.backend import Link, Staging, Transmission
from pdserve.kv.config import TransferConfig
from pdserve.kv.store import Store

# gloo matches sends and receives by a 32-bit tag.
_TAGS = 1 << 20


class GlooBackend:
    """Connects over TCP from the address `config.host`."""

    def __init__(self, config: TransferConfig) -> None:
        self._config = config

    def connect(self, store: Store, rank: int) -> Link:
        """See `Backend.connect`."""
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=self._config.host)]
        options._timeout = timedelta(seconds=self._config.connect_timeout_s)
        options._threads = 1
        try:
            group = dist.ProcessGroupGloo(store, rank, 2, options)
        except RuntimeError as error:
            raise TransferError(f"no gloo link: {_plain(error)}") from error
        return GlooLink(group, 1 - rank, timedelta(seconds=self._config.segment_timeout_s))


class GlooLink:
    """A gloo group of two."""

    def __init__(self, group: dist.ProcessGroupGloo, peer: int, timeout: timedelta) -> None:
        self.staging = Staging(torch.device("cpu"))
        self._group: dist.ProcessGroupGloo | None = group
        self._peer = peer
        self._timeout = timeout
        self._sent = 0
        self._received = 0
        self._transmissions: set[_GlooTransmission] = set()

    def stream(self) -> AbstractContextManager[object]:
        """Nothing: work on CPU is done when the call returns."""
        return nullcontext()

    def wait_for(self, mark: object) -> None:
        """Nothing: what the engine marks on CPU is there."""

    def synchronize(self) -> None:
        """Nothing: work on CPU is done when the call returns."""

    def send(self, data: torch.Tensor) -> Transmission:
        """See `Link.send`."""
        self._sent += 1
        return self._start("send", data, self._sent % _TAGS)

    def recv(self, data: torch.Tensor) -> Transmission:
        """See `Link.recv`."""
        self._received += 1
        return self._start("recv", data, self._received % _TAGS)

    def close(self) -> None:
        """Closes the sockets, so that what the peer waits for fails at once.

        gloo does that when nothing refers to the group any more; work under way would.
        """
        self._group = None
        for transmission in self._transmissions:
            transmission.drop()
        self._transmissions.clear()

    def _start(self, operation: str, data: torch.Tensor, tag: int) -> Transmission:
        try:
            work = getattr(self._group, operation)([data], self._peer, tag)
        except RuntimeError as error:
            raise TransferError(f"gloo {operation} failed: {_plain(error)}") from error
        transmission = _GlooTransmission(operation, work, self._timeout, self._transmissions)
        self._transmissions.add(transmission)
        return transmission


class _GlooTransmission:
    """Is in `under_way` until it has been waited for."""

    def __init__(
        self,
        operation: str,
        work: dist.Work,
        timeout: timedelta,
        under_way: "set[_GlooTransmission]",
    ) -> None:
        self._operation = operation
        self._work: dist.Work | None = work
        self._timeout = timeout
        self._under_way = under_way

    def wait(self) -> None:
        """See `Transmission.wait`."""
        assert self._work is not None
        try:
            self._work.wait(self._timeout)
        except RuntimeError as error:
            raise TransferError(f"gloo {self._operation} failed: {_plain(error)}") from error
        finally:
            self.drop()
            self._under_way.discard(self)

    def drop(self) -> None:
        """Lets go of the group."""
        self._work = None


def _plain(error: RuntimeError) -> str:
    """gloo's message without its source file, its advice and its decoration."""
    text = str(error).partition("\n")[0]
    return re.sub(r"^\[\S+\] ", "", text).partition(". This is ")[0]
