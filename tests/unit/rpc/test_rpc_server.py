"""What every service has: health, reflection, a port of its own, a graceful end."""

import asyncio
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pdserve.errors import ConfigError, UnavailableError
from pdserve.rpc.channel import open_channel
from pdserve.rpc.errors import servicer_method, translated
from pdserve.rpc.server import NOT_SERVING, SERVING, RpcServer, check_port_is_free
from pdserve.rpc.v1 import decode_pb2_grpc, prefill_pb2, prefill_pb2_grpc, types_pb2

PREFILL = "pdserve.v1.Prefill"
DEADLINE_S = 30


def has_ipv6():
    try:
        check_port_is_free("::1", 0)
    except ConfigError:
        return False
    return True


@pytest.fixture
async def server():
    one = RpcServer("127.0.0.1", 0, [PREFILL])
    yield one
    await one.stop(grace_s=0)


async def health_of(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return (await stub.Check(request, timeout=DEADLINE_S)).status


async def test_health_follows_the_service(server):
    await server.start()
    async with open_channel(server.address) as channel:
        for serving, status in ((None, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)):
            if serving is not None:
                await server.set_serving(serving)
            assert [await health_of(channel, name) for name in ("", PREFILL)] == [status] * 2


async def test_who_watches_health_sees_the_end_of_the_service(server):
    await server.start()
    await server.set_serving(True)
    async with open_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=PREFILL), timeout=DEADLINE_S)
        assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(server.stop(grace_s=DEADLINE_S))
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        await stopping


async def test_reflection_lists_and_describes_the_services(server):
    await server.start()
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=PREFILL),
    ]
    async with open_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter(requests), timeout=DEADLINE_S)
        listed, described = [response async for response in call]
    names = {service.name for service in listed.list_services_response.service}
    assert {PREFILL, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names
    files = described.file_descriptor_response.file_descriptor_proto
    assert any(b"PullKv" in file for file in files)


async def test_a_port_in_use_is_named(server):
    with pytest.raises(ConfigError, match=f"port {server.port} on 127.0.0.1 is in use") as caught:
        RpcServer("127.0.0.1", server.port, [])
    assert caught.value.field == "port"


async def test_a_port_that_another_program_listens_on_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use"):
            check_port_is_free("127.0.0.1", port)
    check_port_is_free("127.0.0.1", port)


async def test_an_address_that_is_not_ours_is_named():
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1:0") as caught:
        RpcServer("203.0.113.1", 0, [])
    assert caught.value.field == "port"


async def test_servers_get_ports_of_their_own(server):
    other = RpcServer("127.0.0.1", 0, [])
    assert other.port != server.port
    assert other.address == f"127.0.0.1:{other.port}"
    await other.stop(grace_s=0)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_an_ipv6_address_can_be_connected_to():
    server = RpcServer("::1", 0, [PREFILL])
    await server.start()
    async with open_channel(server.address) as channel:
        assert await health_of(channel, PREFILL) == NOT_SERVING
    await server.stop(grace_s=0)


async def test_a_service_that_is_not_there_yet_is_unavailable_and_then_served(server):
    await server.start()
    async with open_channel(server.address) as channel:
        stub = prefill_pb2_grpc.PrefillStub(channel)
        with pytest.raises(UnavailableError, match="loading"):
            async with translated():
                await stub.Release(prefill_pb2.ReleaseRequest(), timeout=DEADLINE_S)
        with pytest.raises(UnavailableError, match="loading"):
            async with translated():
                await stub.WatchLoad(types_pb2.WatchLoadRequest(), timeout=DEADLINE_S).read()
        servicer = Slow()
        servicer.gate.set()
        server.register(prefill_pb2_grpc.add_PrefillServicer_to_server, servicer)
        assert (await stub.Release(prefill_pb2.ReleaseRequest(), timeout=DEADLINE_S)).released


async def test_a_service_of_another_process_is_unimplemented(server):
    await server.start()
    async with open_channel(server.address) as channel:
        stub = decode_pb2_grpc.DecodeStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Drain(types_pb2.DrainRequest(), timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class Slow(prefill_pb2_grpc.PrefillServicer):
    def __init__(self):
        self.entered, self.gate, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @servicer_method
    async def Release(self, request, context):  # noqa: N802
        self.entered.set()
        try:
            await self.gate.wait()
        finally:
            self.ended.set()
        return prefill_pb2.ReleaseResponse(released=True)


@pytest.fixture
async def slow(server):
    servicer = Slow()
    server.register(prefill_pb2_grpc.add_PrefillServicer_to_server, servicer)
    await server.start()
    async with open_channel(server.address) as channel:
        stub = prefill_pb2_grpc.PrefillStub(channel)
        call = stub.Release(prefill_pb2.ReleaseRequest(), timeout=DEADLINE_S)
        async with asyncio.timeout(DEADLINE_S):
            await servicer.entered.wait()
        yield servicer, call


async def test_a_running_call_finishes_within_the_grace(server, slow):
    servicer, call = slow
    stopping = asyncio.create_task(server.stop(grace_s=DEADLINE_S))
    servicer.gate.set()
    assert (await call).released
    await stopping


async def test_after_the_grace_a_running_call_is_ended(server, slow):
    servicer, call = slow
    await server.stop(grace_s=0)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
    async with asyncio.timeout(DEADLINE_S):
        await servicer.ended.wait()


async def test_a_cancelled_call_unwinds_on_the_server(slow):
    servicer, call = slow
    call.cancel()
    async with asyncio.timeout(DEADLINE_S):
        await servicer.ended.wait()
