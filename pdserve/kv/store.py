"""The stores at which the two ends of a channel meet."""

import socket
from datetime import timedelta

# torch.distributed has these names, but does not export them to type checkers.
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from pdserve.errors import TransferError
from pdserve.kv.config import TransferConfig

__all__ = ["PrefixStore", "Store", "TCPStore", "forget", "meet", "open_store", "reach_store"]


def open_store(config: TransferConfig) -> TCPStore:
    """Returns a new store that listens at `config.host` only; left to itself, it would everywhere.

    Raises `TransferError` when nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, 0), family=family)
        return TCPStore(
            config.host,
            listener.getsockname()[1],
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=config.connect_timeout_s),
            master_listen_fd=listener.detach(),
        )
    except (OSError, RuntimeError) as error:
        raise TransferError(f"no store at {config.host}: {error}", field="host") from error


def reach_store(host: str, port: int, config: TransferConfig) -> TCPStore:
    """Returns the store of another process. Raises `TransferError` when it does not answer."""
    try:
        timeout = timedelta(seconds=config.connect_timeout_s)
        return TCPStore(host, port, is_master=False, timeout=timeout)
    except RuntimeError as error:
        raise TransferError(f"no store at {host}:{port}: {error}") from error


def meet(store: Store, rank: int) -> None:
    """Returns once ranks 0 and 1 are both at `store`.

    Raises `TransferError` when the other one does not come within the store's timeout.
    """
    try:
        store.set(f"rank {rank}", "here")
        store.wait([f"rank {1 - rank}"])
    except RuntimeError as error:
        raise TransferError(f"rank {1 - rank} did not come: {error}") from error


def forget(store: TCPStore, prefix: str, *, keep: str) -> None:
    """Deletes what stands under `prefix`, but not what stands under `keep`.

    Raises `TransferError` when the store does not answer.
    """
    try:
        for name in store.list_keys():
            if name.startswith(f"{prefix}/") and not name.startswith(f"{keep}/"):
                store.delete_key(name)
    except RuntimeError as error:
        raise TransferError(f"no store at {store.host}:{store.port}: {error}") from error
