"""Links between CPUs."""

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
            raise TransferError(f"no gloo link: {error}") from error
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
        """Closes the sockets, by dropping the group: what the peer waits for fails at once."""
        self._group = None

    def _start(self, operation: str, data: torch.Tensor, tag: int) -> Transmission:
        try:
            work = getattr(self._group, operation)([data], self._peer, tag)
        except RuntimeError as error:
            raise TransferError(f"gloo {operation} failed: {error}") from error
        return _GlooTransmission(operation, work, self._timeout)


class _GlooTransmission:
    def __init__(self, operation: str, work: dist.Work, timeout: timedelta) -> None:
        self._operation = operation
        self._work = work
        self._timeout = timeout

    def wait(self) -> None:
        try:
            self._work.wait(self._timeout)
        except RuntimeError as error:
            raise TransferError(f"gloo {self._operation} failed: {error}") from error
