"""A long-lived channel to one address, opened anew where certificates have changed."""

import asyncio
from types import TracebackType

from grpc import aio

from pdserve.rpc.channel import open_channel
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.tls_identity import TlsIdentity


class RenewedChannel:
    """`current` is the channel for calls that begin now.

    gRPC reconnects with the certificates that a channel was opened with. `renew` replaces a channel
    whose certificates are not the newest of `tls`; it is closed after `grace_s`, which no call on
    it should outlast. Used as a context manager, this closes everything at the end.
    """

    def __init__(self, address: str, tls: TlsIdentity | None, grace_s: float) -> None:
        self._address = address
        self._tls = tls
        self._grace_s = grace_s
        self._client = self._newest()
        self.current = open_channel(address, self._client)
        # Channels that were replaced, and what closes each. Not aio's own grace: nothing could cut
        # that short.
        self._replaced: dict[aio.Channel, asyncio.Task[None]] = {}

    def renew(self) -> bool:
        """Opens the channel anew if that is needed; says whether it was."""
        newest = self._newest()
        if newest == self._client:
            return False
        closing = asyncio.create_task(self._close_late(self.current), name="close channel")
        self._replaced[self.current] = closing
        self._client = newest
        self.current = open_channel(self._address, newest)
        return True

    async def close(self) -> None:
        """Ends every call."""
        replaced = dict(self._replaced)
        for closing in replaced.values():
            closing.cancel()
        await asyncio.gather(*replaced.values(), return_exceptions=True)
        for channel in (*replaced, self.current):
            await channel.close()

    async def __aenter__(self) -> "RenewedChannel":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _newest(self) -> ClientTls | None:
        return self._tls.client if self._tls else None

    async def _close_late(self, channel: aio.Channel) -> None:
        await asyncio.sleep(self._grace_s)
        await channel.close()
        del self._replaced[channel]
