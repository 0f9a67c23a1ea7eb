"""A prefill or decode process of its own, to be killed and stopped: `python transfer_process.py`.

`DEVICE prefill INCARNATION`: offers `TRANSFERS` complete sequences in blocks 0.. and prints its
address. `DEVICE behind INCARNATION`: the same, but the device is still busy with what comes before
the KV. `DEVICE decode ADDRESS TRANSFER`: pulls one sequence and prints `landed` after each of its
segments.
"""

import asyncio
import sys
from dataclasses import replace

import torch
from grpc import aio
from kv_pair import FIRST_TOKEN, LAYOUT, admitted, kv_source, random_pool, request_ref

from pdserve.errors import PdserveError
from pdserve.kv.backend import make_backend
from pdserve.kv.config import TransferConfig
from pdserve.kv.receiver import Receiver
from pdserve.kv.sender import Sender
from pdserve.rpc.errors import abort, translated
from pdserve.rpc.v1 import prefill_pb2_grpc

TOKENS, TRANSFERS = 200, 2
BLOCKS = range(50)
# Hundreds of segments a transfer, so that none ends between a signal's cause and its effect.
CONFIG = TransferConfig(
    segment_bytes=512, segment_timeout_s=1.0, connect_timeout_s=2.0, lease_s=1.5
)
# A GPU's context and NCCL take seconds to begin with.
CUDA_CONFIG = replace(CONFIG, segment_timeout_s=4.0, connect_timeout_s=15.0, lease_s=8.0)
_BUSY_CYCLES = 1_000_000_000


def config_of(device):
    """The limits that failures on `device` are held to."""
    return CUDA_CONFIG if device.type == "cuda" else CONFIG


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
    offer.place(BLOCKS, TOKENS)
    offer.complete(FIRST_TOKEN)


def finish_behind(offer, pool):
    """All of it has been enqueued on the device, behind something that takes long."""
    values = pool.data.clone()
    pool.data.zero_()
    torch.cuda._sleep(_BUSY_CYCLES)
    pool.data.copy_(values)
    offer.place(BLOCKS, 0)
    offer.advance(0, LAYOUT.layers, TOKENS, pool.mark())
    offer.complete(FIRST_TOKEN)


async def sending(device, incarnation):
    """A sender whose offers wait for a puller, and its pool."""
    pool = random_pool(LAYOUT, device=device)
    config = replace(config_of(device), lease_s=60)
    sender = Sender(incarnation, LAYOUT, 0, pool, make_backend(device, config), config)
    await sender.start()
    return sender, pool


async def prefill(device, incarnation):
    sender, _ = await sending(device, incarnation)
    for i in range(TRANSFERS):
        finish(offer(sender, f"t{i}", incarnation))
    await print_address(sender)


async def behind(device, incarnation):
    sender, pool = await sending(device, incarnation)
    finish_behind(offer(sender, "t0", incarnation), pool)
    await print_address(sender)


async def print_address(sender):
    """Never returns."""
    _, address = await serving(sender)
    print(address, flush=True)
    await asyncio.Event().wait()


async def decode(device, address, transfer):
    pool = random_pool(LAYOUT, seed=1, device=device)
    config = config_of(device)
    receiver = Receiver("D-child", LAYOUT, 0, pool, make_backend(device, config), config)
    await receiver.pull(
        transfer,
        request_ref(transfer),
        kv_source(transfer),
        calling(address),
        admitted(BLOCKS, 0, TOKENS),
        on_progress=lambda _: print("landed", flush=True),
    )
    await asyncio.Event().wait()  # prefill has yet to hear of the last segment


if __name__ == "__main__":
    name, role, *arguments = sys.argv[1:]
    roles = {"prefill": prefill, "behind": behind, "decode": decode}
    asyncio.run(roles[role](torch.device(name), *arguments))
