"""Links between GPUs."""

import os
import time
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

from pdserve.errors import TransferError
from pdserve.kv.backend import Link, Staging, Transmission
from pdserve.kv.config import TransferConfig
from pdserve.kv.store import Store, meet

# Long enough to leave the core to the engine, short against a segment.
_POLL_S = 50e-6

# torch watches each communicator from threads of its own, and their answers to one that failed end
# the process or hold up its end for minutes. Here a failed channel is one transfer's misfortune:
# errors are found by polling, and the communicator is aborted. Blocking wait is the mode without
# these threads (no wait ever blocks: it follows the polling), and the recorder needs them.
_ENVIRONMENT = {
    "TORCH_NCCL_BLOCKING_WAIT": "1",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_FR_BUFFER_SIZE": "0",
}


class NcclBackend:
    """Connects from the GPU `device`.

    Sets the environment variables that keep torch from ending the process with a communicator.
    """

    def __init__(self, device: torch.device, config: TransferConfig) -> None:
        os.environ.update(_ENVIRONMENT)
        self._device = device
        self._config = config

    def connect(self, store: Store, rank: int) -> Link:
        """See `Backend.connect`; the first byte is exchanged here, which is when NCCL connects."""
        store.set_timeout(timedelta(seconds=self._config.connect_timeout_s))
        meet(store, rank)  # once begun, NCCL waits for the other end without a limit
        try:
            group = dist.ProcessGroupNCCL(store, rank, 2, dist.ProcessGroupNCCL.Options())
        except RuntimeError as error:
            raise TransferError(f"no NCCL link: {error}") from error
        link = NcclLink(group, 1 - rank, self._device, self._config.segment_timeout_s)
        try:
            _greet(link, rank)
        except TransferError:
            link.close()
            raise
        return link


class NcclLink:
    """A NCCL communicator of two, with a CUDA stream of its own."""

    def __init__(
        self, group: dist.ProcessGroupNCCL, peer: int, device: torch.device, timeout_s: float
    ) -> None:
        self.staging = Staging(device)
        self._group = group
        self._peer = peer
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    def stream(self) -> AbstractContextManager[object]:
        """See `Link.stream`."""
        return cast("AbstractContextManager[object]", torch.cuda.stream(self._stream))

    def wait_for(self, mark: object) -> None:
        """Makes the stream wait for `mark`, a `torch.cuda.Event`."""
        if isinstance(mark, torch.cuda.Event):
            self._stream.wait_event(mark)

    def synchronize(self) -> None:
        """Returns when everything in the stream has happened."""
        self._stream.synchronize()

    def send(self, data: torch.Tensor) -> Transmission:
        """See `Link.send`."""
        return self._start("send", data)

    def recv(self, data: torch.Tensor) -> Transmission:
        """See `Link.recv`."""
        return self._start("recv", data)

    def close(self) -> None:
        """Aborts the communicator: kernels that wait for the peer end."""
        self._group.abort()

    def _start(self, operation: str, data: torch.Tensor) -> Transmission:
        try:
            with self.stream():
                work = getattr(self._group, operation)([data], self._peer, 0)
        except RuntimeError as error:
            raise TransferError(f"NCCL {operation} failed: {error}") from error
        return _NcclTransmission(operation, work, self, self._timeout_s)


class _NcclTransmission:
    def __init__(self, operation: str, work: dist.Work, link: NcclLink, timeout_s: float) -> None:
        self._operation = operation
        self._work = work
        self._link = link
        self._timeout_s = timeout_s

    def wait(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        try:
            while not self._work.is_completed():
                if time.monotonic() > deadline:
                    raise TransferError(
                        f"NCCL {self._operation} took more than {self._timeout_s:g} s"
                    )
                time.sleep(_POLL_S)
            with self._link.stream():
                self._work.wait()  # orders the stream after it, and raises what polling found
        except RuntimeError as error:
            raise TransferError(f"NCCL {self._operation} failed: {error}") from error


def _greet(link: NcclLink, rank: int) -> None:
    with link.stream():
        data = link.staging.buffer(0, 1).zero_()
    (link.send if rank == 0 else link.recv)(data).wait()
