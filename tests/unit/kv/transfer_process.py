"""A prefill or decode process of its own, to be killed and stopped: `python transfer_process.py`.

`prefill INCARNATION`: offers `TRANSFERS` complete sequences in blocks 0.. and prints its address.
`decode ADDRESS TRANSFER`: pulls one sequence and prints `landed` after its first segment.
"""

import asyncio
import sys

from grpc import aio
from kv_pair import CPU, FIRST_TOKEN, LAYOUT, admitted, kv_source, random_pool, request_ref

from pdserve.errors import PdserveError
from pdserve.kv.backend import make_backend
from pdserve.kv.config import TransferConfig
from pdserve.kv.receiver import Receiver
from pdserve.kv.sender import Sender
from pdserve.rpc.errors import abort, translated
from pdserve.rpc.v1 import prefill_pb2_grpc

TOKENS, TRANSFERS = 200, 2
# Hundreds of segments a transfer, so that none ends between a signal's cause and its effect.
CONFIG = TransferConfig(
    segment_bytes=512, segment_timeout_s=1.0, connect_timeout_s=2.0, lease_s=1.5
)


class Servicer(prefill_pb2_grpc.PrefillServicer):
    def __init__(self, sender):
        self._sender = sender

    async def PullKv(self, requests, context):  # noqa: N802
        try:
            await self._sender.serve(requests, context.write)
        except PdserveError as error:
            await abort(context, error)


def calling(address):
    """PullKv over gRPC, for `Receiver.pull`."""

    async def call(requests):
        async with aio.insecure_channel(address) as channel:
            responses = prefill_pb2_grpc.PrefillStub(channel).PullKv(requests)
            try:
                async with translated():
                    async for response in responses:
                        yield response
            finally:
                responses.cancel()

    return call


async def serving(sender):
    """Returns the gRPC server of `sender`, and its address."""
    server = aio.server()
    prefill_pb2_grpc.add_PrefillServicer_to_server(Servicer(sender), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


def offer(sender, name, incarnation):
    """An offer of a sequence in blocks 0.. that is still to be computed."""
    return sender.offer(name, request_ref(name, incarnation), TOKENS)


def finish(offer):
    """All of it has been computed."""
    offer.place(range(50), TOKENS)
    offer.complete(FIRST_TOKEN)


async def prefill(incarnation):
    pool = random_pool(LAYOUT)
    config = TransferConfig(segment_bytes=512, segment_timeout_s=1.0, lease_s=60)
    sender = Sender(incarnation, LAYOUT, 0, pool, make_backend(CPU, config), config)
    await sender.start()
    for i in range(TRANSFERS):
        finish(offer(sender, f"t{i}", incarnation))
    _, address = await serving(sender)
    print(address, flush=True)
    await asyncio.Event().wait()


async def decode(address, transfer):
    pool = random_pool(LAYOUT, seed=1)
    receiver = Receiver("D-child", LAYOUT, 0, pool, make_backend(CPU, CONFIG), CONFIG)
    await receiver.pull(
        transfer,
        request_ref(transfer),
        kv_source(transfer),
        calling(address),
        admitted(range(50), 0, TOKENS),
        on_progress=lambda _: print("landed", flush=True),
    )


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    asyncio.run({"prefill": prefill, "decode": decode}[role](*arguments))
