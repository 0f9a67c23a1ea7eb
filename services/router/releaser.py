"""Tells prefill instances to free KV that nobody will pull."""

import asyncio
import logging

from grpc import aio

from pdserve.rpc.v1 import prefill_pb2, types_pb2
from services.router.instance import Instance

log = logging.getLogger(__name__)

_DEADLINE_S = 2.0
# Beyond this the prefill instances' leases have to do.
_MAX_PENDING = 1024


class Releaser:
    """Owns the calls of `Prefill/Release`: best effort, since leases free the KV in the end too."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    def release(self, instance: Instance, ref: types_pb2.RequestRef, transfer_id: str) -> None:
        """Starts a call; it ends within a fixed deadline."""
        if len(self._tasks) >= _MAX_PENDING:
            return
        request = prefill_pb2.ReleaseRequest(ref=ref, transfer_id=transfer_id)
        task = asyncio.create_task(_release(instance, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits for the calls under way."""
        await asyncio.gather(*self._tasks)


async def _release(instance: Instance, request: prefill_pb2.ReleaseRequest) -> None:
    """Makes the call. An instance that has left discovery may have no channel any more."""
    try:
        await instance.prefill.Release(request, timeout=_DEADLINE_S)
    except aio.AioRpcError as error:
        status = error.code().name
    except aio.UsageError:
        status = "the channel was closed"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        status = "the channel was closed during the call"
    else:
        return
    log.debug(
        "release failed",
        extra={
            "request_id": request.ref.request_id,
            "instance": instance.name,
            "status": status,
        },
    )
