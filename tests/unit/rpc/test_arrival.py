"""A call came in before its message was read, and no other call changes when."""

import asyncio
import time

from pdserve.rpc.arrival import arrived_at
from pdserve.rpc.channel import open_channel
from pdserve.rpc.server import RpcServer
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc


class Asked(router_pb2_grpc.InferenceServicer):
    """Answers all calls at once, when there are two."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        self.both = asyncio.Event()

    async def ListModels(self, request, context):  # noqa: N802
        arrived, begun = arrived_at(), time.monotonic()
        self.seen.append((arrived, begun))
        if len(self.seen) == 2:
            self.both.set()
        await self.both.wait()
        assert arrived_at() == arrived
        return router_pb2.ListModelsResponse()


async def test_each_call_knows_when_it_came_in() -> None:
    server, asked = RpcServer("127.0.0.1", 0, []), Asked()
    server.register(router_pb2_grpc.add_InferenceServicer_to_server, asked)
    await server.start()
    try:
        before = time.monotonic()
        async with open_channel(server.address) as channel:
            stub = router_pb2_grpc.InferenceStub(channel)
            request = router_pb2.ListModelsRequest()
            await asyncio.gather(*(stub.ListModels(request, timeout=20) for _ in range(2)))
    finally:
        await server.stop(0)
    arrivals = [arrived for arrived, _ in asked.seen]
    assert len(set(arrivals)) == 2
    assert all(before < arrived < begun for arrived, begun in asked.seen)


def test_what_is_no_call_arrives_now() -> None:
    before = time.monotonic()
    assert before <= arrived_at() <= time.monotonic()
