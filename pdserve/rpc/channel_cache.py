"""Client channels by address, kept while they are of use."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc import aio

from pdserve.rpc.channel import open_channel


class ChannelCache:
    """Keeps the channels that are in use, and at most `max_idle` that are not."""

    def __init__(self, max_idle: int = 64) -> None:
        self._max_idle = max_idle
        self._idle: OrderedDict[str, aio.Channel] = OrderedDict()
        self._used: dict[str, tuple[aio.Channel, int]] = {}

    @asynccontextmanager
    async def channel(self, address: str) -> AsyncIterator[aio.Channel]:
        """The channel to `address`, for as long as the context lasts."""
        channel, users = self._used.get(address) or (self._take(address), 0)
        self._used[address] = (channel, users + 1)
        try:
            yield channel
        finally:
            await self._give_back(address)

    async def close(self) -> None:
        """Closes every channel; calls on them end."""
        channels = [*self._idle.values(), *(channel for channel, _ in self._used.values())]
        self._idle.clear()
        for channel in channels:
            await channel.close()

    def _take(self, address: str) -> aio.Channel:
        return self._idle.pop(address, None) or open_channel(address)

    async def _give_back(self, address: str) -> None:
        channel, users = self._used.pop(address)
        if users > 1:
            self._used[address] = (channel, users - 1)
            return
        self._idle[address] = channel
        if len(self._idle) > self._max_idle:
            _, oldest = self._idle.popitem(last=False)
            await oldest.close()
