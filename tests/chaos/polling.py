"""Waiting for what nobody tells: the state of processes that may not even answer."""

import asyncio
from collections.abc import Awaitable, Callable

from grpc import aio

_PAUSE_S = 0.02


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    """Asks until `holds()` does; raises `TimeoutError`. Where a call fails it does not hold."""
    async with asyncio.timeout(timeout_s):
        while not await _answered(holds):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(_PAUSE_S)


async def _answered(holds: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await holds()
    except aio.AioRpcError:
        return False
