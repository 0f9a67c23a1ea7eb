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
    whose certificates are not the newest of `tls`; calls on it may go on for `grace_s`. Used as a
    context manager, it closes everything at the end.
    """

    def __init__(self, address: str, tls: TlsIdentity | None, grace_s: float) -> None:
        self._address = address
        self._tls = tls
        self._grace_s = grace_s
        self._client = self._newest()
        self.current = open_channel(address, self._client)
        # Channels that are closing, with the tasks that close them.
        self._old: dict[aio.Channel, asyncio.Task[None]] = {}

    def renew(self) -> bool:
        """Opens the channel anew if that is needed; says whether it was."""
        newest = self._newest()
        if newest == self._client:
            return False
        self._retire(self.current)
        self._client = newest
        self.current = open_channel(self._address, newest)
        return True

    async def close(self) -> None:
        """Ends every call."""
        for channel in (*self._old, self.current):
            await channel.close()
        await asyncio.gather(*self._old.values())

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

    def _retire(self, channel: aio.Channel) -> None:
        task = asyncio.create_task(channel.close(self._grace_s), name=f"retire {self._address}")
        self._old[channel] = task
        task.add_done_callback(lambda _: self._old.pop(channel, None))
