"""What GetCluster tells of links, on a router with fake instances."""

import pytest
from router_bench import bench

from pdserve.rpc.v1 import router_pb2


async def links_of(it):
    answer = await it.stub.GetCluster(router_pb2.GetClusterRequest(), timeout=5)
    return {(each.prefill, each.decode): each for each in answer.links}


@pytest.mark.parametrize("placer", ["predictive", "least_load"])
async def test_hand_offs_are_measured_whoever_places(placer: str) -> None:
    async with bench(prefill=1, decode=1, placer=placer, canary_interval_s=0) as it:
        assert await links_of(it) == {}
        await it.generate()
        (link,) = (await links_of(it)).values()
        assert (link.prefill, link.decode) == ("prefill-0", "decode-0")
        assert (link.distance, link.breaker, link.transfers) == ("node", "closed", 1)
        assert link.bandwidth_bytes_per_s > 0


async def test_a_pair_that_is_not_used_any_more_is_told_although_nothing_has_moved() -> None:
    async with bench(prefill=1, decode=1, canary_interval_s=0, breaker_failures=1) as it:
        prefill, decode = (each.incarnation for each in it.router.fleet.instances())
        it.router.breakers.failed(prefill, decode)
        (link,) = (await links_of(it)).values()
        assert (link.breaker, link.transfers) == ("open", 0)
