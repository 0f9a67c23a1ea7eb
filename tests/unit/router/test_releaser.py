"""Releases are best effort: whatever becomes of the instance, none of them is an error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc import aio
from router_fakes import FakePrefill, hang

from pdserve.config import RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.errors import servicer_method
from pdserve.rpc.v1 import types_pb2
from services.router.instance import Instance
from services.router.knowledge import Knowledge
from services.router.releaser import Releaser

REF = types_pb2.RequestRef(request_id="r")


class Stuck(FakePrefill):
    """Never answers a release."""

    @servicer_method
    async def Release(self, request, context):  # noqa: N802
        self.released.append(request)
        await hang()


@asynccontextmanager
async def connected(fake: FakePrefill) -> AsyncIterator[tuple[Instance, aio.Channel]]:
    await fake.start()
    channel = open_channel(fake.address.address)
    try:
        yield Instance(fake.address, channel, fake.report, Knowledge(RouterConfig())), channel
    finally:
        await channel.close()
        await fake.kill()


async def test_a_release_names_its_transfer() -> None:
    fake = FakePrefill("p", {})
    async with connected(fake) as (instance, _):
        releaser = Releaser()
        releaser.release(instance, REF, "t")
        await releaser.close()
        assert releaser.pending == 0
        assert [(each.ref, each.transfer_id) for each in fake.released] == [(REF, "t")]


async def test_an_instance_whose_channel_is_closed_is_told_nothing() -> None:
    fake = FakePrefill("p", {})
    async with connected(fake) as (instance, channel):
        await channel.close()
        releaser = Releaser()
        releaser.release(instance, REF, "t")
        await releaser.close()  # raises what a call has raised
        assert (releaser.pending, fake.released) == (0, [])


async def test_a_channel_that_closes_ends_the_calls_under_way() -> None:
    fake = Stuck("p", {})
    async with connected(fake) as (instance, channel):
        releaser = Releaser()
        releaser.release(instance, REF, "t")
        while not fake.released:  # noqa: ASYNC110 - it is served in this loop
            await asyncio.sleep(0.005)
        closing = asyncio.create_task(releaser.close())
        await channel.close()
        await closing
        assert releaser.pending == 0
