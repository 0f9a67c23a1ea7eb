"""This process as one end of a transfer, and a child process as the other one."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import torch
from kv_pair import LAYOUT, admitted, kv, kv_source, random_pool, request_ref
from transfer_process import BLOCKS, TOKENS, calling, config_of, serving

from pdserve.kv.backend import make_backend
from pdserve.kv.receiver import Receiver
from pdserve.kv.sender import Sender
from tests.devices import nccl_host

SCRIPT = Path(__file__).with_name("transfer_process.py")


@asynccontextmanager
async def process(device, *arguments):
    """A child process; killed at the end, whatever its state."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        str(device),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **nccl_host()},
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def line(child):
    return (await child.stdout.readline()).decode().strip()


@asynccontextmanager
async def receiving(device):
    config = config_of(device)
    pool = random_pool(LAYOUT, seed=1, device=device)
    receiver = Receiver("D", LAYOUT, 0, pool, make_backend(device, config), config)
    try:
        yield receiver
    finally:
        await receiver.close()
        assert (receiver.transfers, receiver.channels) == (0, 0)


@asynccontextmanager
async def sending(device):
    """A sender with its gRPC server's address."""
    config = config_of(device)
    pool = random_pool(LAYOUT, device=device)
    sender = Sender("P", LAYOUT, 0, pool, make_backend(device, config), config)
    await sender.start()
    server, address = await serving(sender)
    try:
        yield sender, address
    finally:
        await sender.close()
        await server.stop(grace=1)
        assert (sender.counts.transfers, sender.counts.channels) == (0, 0)


def pulling(receiver, address, transfer, incarnation, on_progress=lambda _: None):
    return receiver.pull(
        transfer,
        request_ref(transfer, incarnation),
        kv_source(transfer, incarnation),
        calling(address),
        admitted(BLOCKS, 0, TOKENS),
        on_progress=on_progress,
    )


def arrived(receiver):
    """Whether the receiver's blocks hold, bit for bit, what every sender's do."""
    mine = kv(receiver._shard.pool, BLOCKS, 0, TOKENS).cpu()
    return torch.equal(mine, kv(random_pool(LAYOUT), BLOCKS, 0, TOKENS))
