"""The receiving end of KV transfers, with the control call to the prefill instance."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from pdserve.instance.instance import TransferCounts
from pdserve.kv.arrivals import Admission, PullResult
from pdserve.kv.receiver import Receiver
from pdserve.rpc.channel_cache import ChannelCache
from pdserve.rpc.errors import translated
from pdserve.rpc.v1 import prefill_pb2 as pb
from pdserve.rpc.v1 import prefill_pb2_grpc, types_pb2


class DecodeTransfers:
    """Pulls KV from whichever prefill instance a request names; the channels are its own."""

    listener = None  # a decode instance hands nothing over

    def __init__(self, receiver: Receiver, channels: ChannelCache) -> None:
        self.receiver = receiver
        self._channels = channels

    async def pull(
        self,
        key: str,
        ref: types_pb2.RequestRef,
        source: types_pb2.KvSource,
        admission: asyncio.Future[Admission],
        timeout_s: float | None,
    ) -> PullResult:
        """Moves the KV of `source` into the admitted blocks.

        Raises `TransferError` when another attempt may succeed, and whatever prefill refuses with.
        """

        # The call outlives the pull: prefill still has to hear that everything has landed.
        async def call(
            requests: AsyncIterator[pb.PullKvRequest],
        ) -> AsyncGenerator[pb.PullKvResponse, None]:
            async with self._channels.channel(source.address) as channel:
                stub = prefill_pb2_grpc.PrefillStub(channel)
                responses = stub.PullKv(requests, timeout=timeout_s)
                try:
                    async with translated():
                        async for response in responses:
                            yield response
                finally:
                    responses.cancel()

        return await self.receiver.pull(key, ref, source, call, admission)

    async def settled(self, key: str) -> None:
        """Returns once nothing can land any more in the blocks of a pull that has returned."""
        await self.receiver.settled(key)

    def counts(self) -> TransferCounts:
        """Open transfers, channels and leases."""
        return TransferCounts(self.receiver.transfers, self.receiver.channels)

    async def close(self) -> None:
        """Ends every transfer and channel."""
        await self.receiver.close()
        await self._channels.close()
