"""Client channels by address, kept while they are of use."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

from grpc import aio

from pdserve.rpc.channel import open_channel
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.tls_identity import TlsIdentity

# An address, and the certificates that a channel there was opened with.
_Key: TypeAlias = tuple[str, ClientTls | None]


class ChannelCache:
    """Keeps the channels that are in use, and at most `max_idle` that are not.

    With `tls` channels are opened with its newest certificates. Those that were opened with others
    serve whoever uses them to the end, and nobody else.
    """

    def __init__(self, tls: TlsIdentity | None = None, *, max_idle: int = 64) -> None:
        self._tls = tls
        self._max_idle = max_idle
        self._idle: OrderedDict[_Key, aio.Channel] = OrderedDict()
        self._used: dict[_Key, tuple[aio.Channel, int]] = {}

    @asynccontextmanager
    async def channel(self, address: str) -> AsyncIterator[aio.Channel]:
        """The channel to `address`, for as long as the context lasts."""
        key = (address, self._client())
        channel, users = self._used.get(key) or (self._take(key), 0)
        self._used[key] = (channel, users + 1)
        try:
            yield channel
        finally:
            await self._give_back(key)

    async def close(self) -> None:
        """Closes every channel; calls on them end."""
        channels = [*self._idle.values(), *(channel for channel, _ in self._used.values())]
        self._idle.clear()
        for channel in channels:
            await channel.close()

    def _client(self) -> ClientTls | None:
        return self._tls.client if self._tls else None

    def _take(self, key: _Key) -> aio.Channel:
        return self._idle.pop(key, None) or open_channel(*key)

    async def _give_back(self, key: _Key) -> None:
        channel, users = self._used.pop(key)
        if users > 1:
            self._used[key] = (channel, users - 1)
            return
        self._idle[key] = channel
        newest = self._client()
        useless = [self._idle.pop(each) for each in list(self._idle) if each[1] != newest]
        if len(self._idle) > self._max_idle:
            useless.append(self._idle.popitem(last=False)[1])
        for channel in useless:
            await channel.close()
