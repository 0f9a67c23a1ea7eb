"""The client that replays a workload, against a real gRPC server."""

import asyncio
import random

import numpy as np
from grpc import aio

from benchmarks.replay import replay
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from pdserve.workload.workload import Workload


class PatientRouter(router_pb2_grpc.InferenceServicer):
    """Answers nobody before all have asked."""

    def __init__(self, clients: int) -> None:
        self.requests: list[router_pb2.GenerateRequest] = []
        self._all = asyncio.Barrier(clients)

    async def Generate(self, request, context):  # noqa: N802
        self.requests.append(request)
        await self._all.wait()
        for index in range(request.sampling.max_tokens):
            token = types_pb2.Token(index=index, id=1)
            yield router_pb2.GenerateEvent(delta=router_pb2.Delta(tokens=[token]))
        yield router_pb2.GenerateEvent(finished=router_pb2.Finished())


async def test_requests_go_out_when_they_are_due_and_not_when_others_are_answered():
    workload = Workload("few", np.array([5.0, 5.0, 5.1]), np.array([7, 9, 11]), np.array([3, 1, 2]))
    router = PatientRouter(len(workload))
    server = aio.server()
    router_pb2_grpc.add_InferenceServicer_to_server(router, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        seen = await replay(channel, workload, random.Random(0))
    await server.stop(None)
    by_prompt = {len(each.token_ids.ids): each for each in router.requests}
    assert {size: each.sampling.max_tokens for size, each in by_prompt.items()} == {
        7: 3,
        9: 1,
        11: 2,
    }
    assert all(each.sampling.ignore_eos for each in router.requests)
    assert len({tuple(each.token_ids.ids[:7]) for each in router.requests}) == 3
    # All were answered at once, and their times count from when they were due.
    assert seen[0].ttft_s > seen[2].ttft_s > 0
    assert seen[1].tpot_s == 0
