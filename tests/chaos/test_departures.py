"""Who leaves on purpose: clients that cancel, and an instance that drains."""

import asyncio
import random
import signal

import pytest

from pdserve.rpc.channel import open_channel
from tests.chaos.cells import Victim
from tests.chaos.cluster import ChaosCluster
from tests.chaos.load import Load

pytestmark = [
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(150),
]

CLIENTS, CANCELS_EACH = 25, 20
# A request of the load takes longer, on any machine.
LONGEST_STAY_S = 0.2


async def test_500_cancels_at_random_moments_leave_nothing(cluster: ChaosCluster) -> None:
    rng = random.Random(11)
    async with open_channel(cluster.router.proxy.address) as channel:
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


async def test_a_drained_instance_finishes_and_gets_nothing_new(cluster: ChaosCluster) -> None:
    leaving = cluster.of(Victim.DECODE)[1]
    async with open_channel(cluster.router.proxy.address) as channel:
        load = Load(channel, 6, random.Random(12))
        async with load.running():
            await leaving.controls.hold("decoding")
            await leaving.controls.held.wait()
            leaving.process.signal(signal.SIGTERM)
            leaving.controls.post("release")
            await leaving.process.exited()
    assert leaving.process.exit_code == 0
    assert all(each.ids == each.expected for each in load.streams)
    assert not any(each.disturbed for each in load.streams)
    await leaving.start()
    await cluster.whole()
    await cluster.idle()
