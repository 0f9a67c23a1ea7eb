"""What a channel needs from `torch.distributed`; implemented for CPU and for CUDA."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import torch
import torch.distributed as dist

from pdserve.errors import ConfigError
from pdserve.kv.config import TransferConfig
from pdserve.kv.store import Store


class Staging:
    """The two buffers that bytes pass through, so that one is filled while the other one moves."""

    def __init__(self, device: torch.device) -> None:
        self._buffers = [torch.empty(0, dtype=torch.uint8, device=device) for _ in range(2)]

    def buffer(self, seq: int, size: int) -> torch.Tensor:
        """Returns uint8 [size] for transmission `seq`; transmission `seq` + 2 gets it again.

        Called in the link's stream: torch hands memory that a stream has let go of to the next who
        asks in that stream, while kernels of that stream may still be writing to it.
        """
        if self._buffers[seq % 2].numel() < size:
            self._buffers[seq % 2] = self._buffers[seq % 2].new_empty(size)
        return self._buffers[seq % 2][:size]


class Transmission(Protocol):
    """A send or receive under way."""

    def wait(self) -> None:
        """Returns when it is complete. Raises `TransferError` when it fails or takes too long."""


class Link(Protocol):
    """A communicator of two ranks. Used by the one thread that made it, and closed by it."""

    staging: Staging

    def stream(self) -> AbstractContextManager[object]:
        """The context in which staging buffers are got, filled, sent, received and read."""

    def wait_for(self, mark: object) -> None:
        """Makes what follows in the stream wait for `mark`, which the engine recorded."""

    def synchronize(self) -> None:
        """Returns when everything in the stream has happened."""

    def send(self, data: torch.Tensor) -> Transmission:
        """Starts to send uint8 [bytes]; sends arrive in their order."""

    def recv(self, data: torch.Tensor) -> Transmission:
        """Starts to receive uint8 [bytes]."""

    def close(self) -> None:
        """Ends the communicator, and with it what is under way at either end."""


class Backend(Protocol):
    """Makes links."""

    def connect(self, store: Store, rank: int) -> Link:
        """Returns the link between ranks 0 and 1 that meet at `store`.

        Blocks until both are there. Raises `TransferError` when the other one does not come.
        """


MakeBackend: TypeAlias = Callable[[torch.device, TransferConfig], Backend]


def make_backend(device: torch.device, config: TransferConfig) -> Backend:
    """Returns the backend for KV on `device`: gloo for CPU, NCCL for CUDA.

    Raises `ConfigError` for any other device, and for CUDA without NCCL.
    """
    if device.type == "cpu":
        from pdserve.kv.gloo import GlooBackend

        return GlooBackend(config)
    if device.type == "cuda" and dist.is_nccl_available():
        from pdserve.kv.nccl import NcclBackend

        return NcclBackend(device, config)
    raise ConfigError(f"KV cannot be transferred from device {device}", field="device")
