"""Clients that leave: both phases stop, and nothing of their requests stays anywhere."""

import asyncio
import random
from pathlib import Path

import pytest

from pdserve.rpc.channel import open_channel
from tests.chaos.cluster import chaos_cluster
from tests.chaos.load import Load

pytestmark = [pytest.mark.model, pytest.mark.timeout(150)]

CLIENTS, CANCELS_EACH = 25, 20
# A request of the load takes longer, on any machine.
LONGEST_STAY_S = 0.2


async def test_500_cancels_at_random_moments_leave_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)
    async with (
        chaos_cluster(tmp_path) as cluster,
        open_channel(cluster.router.proxy.address) as channel,
    ):
        load = Load(channel, 1, rng)

        async def client() -> None:
            for _ in range(CANCELS_EACH):
                call = asyncio.create_task(load.ask())
                await asyncio.sleep(rng.uniform(0, LONGEST_STAY_S))
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
        await cluster.idle()
        after = await load.ask()
        assert after.ids == after.expected
