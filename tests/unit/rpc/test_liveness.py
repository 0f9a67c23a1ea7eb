"""A process that cannot serve is alive all the same, and says so."""

from grpc_health.v1 import health_pb2, health_pb2_grpc

from pdserve.rpc.channel import open_channel
from pdserve.rpc.server import LIVENESS, NOT_SERVING, SERVING, RpcServer

DEADLINE_S = 30


async def test_not_serving_is_no_reason_to_restart():
    server = RpcServer("127.0.0.1", 0, ["pdserve.v1.Prefill"])
    await server.start()
    try:
        async with open_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def health(service: str) -> int:
                request = health_pb2.HealthCheckRequest(service=service)
                return (await stub.Check(request, timeout=DEADLINE_S)).status

            assert (await health(""), await health(LIVENESS)) == (NOT_SERVING, SERVING)
            await server.set_serving(True)
            await server.set_serving(False)
            assert (await health(""), await health(LIVENESS)) == (NOT_SERVING, SERVING)
    finally:
        await server.stop(grace_s=0)
