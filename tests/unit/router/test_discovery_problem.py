"""What is wrong with discovery is said wherever somebody may wonder who is missing."""

import grpc
import pytest
from grpc import aio

from pdserve.rpc.v1 import router_pb2
from tests.unit.router.router_bench import bench


async def test_a_problem_of_discovery_is_told_with_the_instances():
    async with bench() as router:
        assert (await router.stub.GetCluster(router_pb2.GetClusterRequest())).instances
        router.members.problem = "pods is forbidden"
        cluster = await router.stub.GetCluster(router_pb2.GetClusterRequest())
        assert cluster.discovery_problem == "pods is forbidden"
        assert len(cluster.instances) == 2


async def test_a_request_that_finds_nobody_says_why():
    async with bench(placement_timeout_s=0.1) as router:
        router.members.problem = "pods is forbidden"
        router.members.change([])
        await router.until(lambda: not router.router.fleet.instances())
        with pytest.raises(aio.AioRpcError) as failed:
            await router.generate()
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "discovery: pods is forbidden" in failed.value.details()
