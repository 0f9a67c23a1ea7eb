"""Watches over an attempt on one instance: whether that is lost, or has forgotten the request."""

import asyncio
from contextlib import suppress

from services.router.failure import LOST, SILENT, lost
from services.router.instance import Instance
from services.router.live import LiveRequest

# Longer than any message is on its way between two machines that live.
LOOK_EVERY_S = 5.0


async def guard(live: LiveRequest, instance: Instance) -> None:
    """Runs until the present attempt on `instance` is lost, then raises its `InstanceFailure`.

    An instance without anything to do, by a report that is younger than the last call to it, has
    answered everything. What has not arrived by the next look never will: the instance lives, and
    knows nothing of the request.
    """
    before: object = None
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                loss = await instance.lost()
                raise lost(instance, loss.reason, LOST if loss.dead else SILENT)
        position = _position(live) if _is_idle(live, instance) else None
        if position is not None and position == before:
            raise lost(instance, "it has nothing to do and has not answered", SILENT)
        before = position


def _is_idle(live: LiveRequest, instance: Instance) -> bool:
    """Whether all that it will send is on its way. Where the client does not read, that waits
    unread in the router.
    """
    return instance.candidate().load.requests == 0 and not live.outbox.full


def _position(live: LiveRequest) -> tuple[object, ...]:
    """How far the attempt has come."""
    times = live.times
    return len(live.output.token_ids), times.started, times.admitted, times.kv_ready
