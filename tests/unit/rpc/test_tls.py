"""Servers and channels over TLS: who is let in, who is not and why, and what rotation does."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pdserve.config import RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.channel_cache import ChannelCache
from pdserve.rpc.handshake import handshake_failure
from pdserve.rpc.renewed_channel import RenewedChannel
from pdserve.rpc.server import RpcServer
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.tls_identity import TlsIdentity, door_client, door_identity, link_identity
from tests.doubles.issued_certificates import Authority, put

TIMEOUT_S = 20
ASKED = health_pb2.HealthCheckRequest()


@asynccontextmanager
async def serving(tls: TlsIdentity | None, host: str = "127.0.0.1") -> AsyncIterator[RpcServer]:
    server = RpcServer(host, 0, [], tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def ask(address: str, tls: ClientTls | None) -> None:
    async with open_channel(address, tls) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(ASKED, timeout=TIMEOUT_S)


async def refusal(address: str, tls: ClientTls | None) -> str:
    """Why nothing comes of a call."""
    with pytest.raises(aio.AioRpcError) as raised:
        await ask(address, tls)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    return handshake_failure(raised.value.details() or "", tls)


async def test_mutual_tls_lets_in_whom_the_authority_knows(tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority()
    mine = authority.issue(tmp_path / "mine")
    client = authority.issue(tmp_path / "client", "client.example").client()
    other = stranger.issue(tmp_path / "other").client()
    assert client.cert
    async with serving(link_identity(mine.instance())) as server:
        await ask(server.address, client)
        assert "may want TLS" in await refusal(server.address, None)
        unshown = ClientTls(client.ca)
        assert "wants a certificate" in await refusal(server.address, unshown)
        distrusting = ClientTls(other.ca, client.cert, client.key)
        assert "its certificate is refused" in await refusal(server.address, distrusting)
        unknown = ClientTls(client.ca, other.cert, other.key)
        assert "refuses the certificate of this client" in await refusal(server.address, unknown)


async def test_a_plain_server_is_told_from_one_that_refuses(tmp_path: Path) -> None:
    client = Authority().issue(tmp_path).client()
    async with serving(None) as server:
        assert await refusal(server.address, client) == "it speaks no TLS"
    assert await refusal(server.address, client) == ""  # nobody is there any more


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_certificate_may_be_for_an_address(tmp_path: Path, host: str) -> None:
    mine = Authority().issue(tmp_path, host)
    async with serving(link_identity(mine.instance()), host) as server:
        await ask(server.address, mine.client())


async def test_a_certificate_may_be_for_a_name_that_all_processes_share(tmp_path: Path) -> None:
    mine = Authority().issue(tmp_path, "pdserve.internal")
    identity = link_identity(mine.instance(tls_server_name="pdserve.internal"))
    assert identity
    async with serving(identity) as server:
        await ask(server.address, identity.client)
        assert "not for this address" in await refusal(server.address, mine.client())
        misled = mine.client(server_name="elsewhere")
        assert "not for the name elsewhere" in await refusal(server.address, misled)


async def test_clients_of_the_router_need_no_certificate_unless_it_says_so(tmp_path: Path) -> None:
    authority = Authority()
    mine = authority.issue(tmp_path / "mine")
    client = authority.issue(tmp_path / "client").client(shown=False)
    async with serving(door_identity(mine.router())) as server:
        await ask(server.address, client)
    people = Authority().issue(tmp_path / "people", "a.person")
    asking = mine.router(tls_door_ca=str(people.ca))
    async with serving(door_identity(asking)) as server:
        assert "wants a certificate" in await refusal(server.address, client)
        shown = ClientTls.read(str(mine.ca), str(people.cert), str(people.key))
        await ask(server.address, shown)


@pytest.mark.parametrize(
    "name", ["pdserve.example", "*.pdserve.example", "10.1.2.3", "2001:db8::1"]
)
async def test_the_supervisor_knows_the_door_whatever_it_is_called(
    tmp_path: Path, name: str
) -> None:
    public = Authority().issue(tmp_path, name)
    door = RouterConfig(tls_door_cert=str(public.cert), tls_door_key=str(public.key))
    async with serving(door_identity(door)) as server:
        await ask(server.address, door_client(door))
    another = Authority().issue(tmp_path / "another", name)
    async with serving(link_identity(another.instance())) as server:
        assert "refused" in await refusal(server.address, door_client(door))


async def test_rotation_reaches_new_connections_and_cuts_no_old_one(tmp_path: Path) -> None:
    old = Authority().issue(tmp_path / "files")
    old_client = old.client()
    identity = link_identity(old.instance())
    assert identity
    async with serving(identity) as server, open_channel(server.address, old_client) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        stream = stub.Watch(ASKED, timeout=TIMEOUT_S)
        states = aiter(stream)
        await anext(states)
        Authority().issue(tmp_path / "files")
        identity.refresh()
        await ask(server.address, identity.client)
        assert "refused" in await refusal(server.address, old_client)
        # The stream is the same, and so is the connection for other calls.
        await server.set_serving(True)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
        await stub.Check(ASKED, timeout=TIMEOUT_S)
        stream.cancel()


async def test_a_bundle_of_authorities_lets_both_in(tmp_path: Path) -> None:
    """How a new authority is brought in without a gap."""
    old, new = Authority(), Authority()
    mine = old.issue(tmp_path / "mine")
    identity = link_identity(mine.instance())
    assert identity
    later = new.issue(tmp_path / "later")
    put(later.ca, old.pem + new.pem)
    async with serving(identity) as server:
        assert await refusal(server.address, later.client())
        put(mine.ca, old.pem + new.pem)
        identity.refresh()
        await ask(server.address, later.client())
        await ask(server.address, old.issue(tmp_path / "sooner").client())


async def test_what_cannot_be_used_changes_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    mine = authority.issue(tmp_path)
    before = mine.client()
    identity = link_identity(mine.instance())
    assert identity
    key = mine.key.read_bytes()
    async with serving(identity) as server:
        for broken in (b"nonsense", b"", authority.issue(tmp_path / "x").key.read_bytes(), None):
            caplog.clear()
            if broken is None:
                mine.key.unlink()
            else:
                put(mine.key, broken)
            with caplog.at_level(logging.INFO):
                identity.refresh()
                identity.refresh()
            assert [each.levelname for each in caplog.records] == ["ERROR"]
            assert "tls_key" in caplog.records[0].detail  # type: ignore[attr-defined]
            assert identity.client == before
            await ask(server.address, before)
        put(mine.key, key)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            identity.refresh()
        assert caplog.messages == ["TLS certificates were read again"]


async def test_secrets_of_kubernetes_change_by_a_link(tmp_path: Path) -> None:
    """A mounted Secret is a folder of links through one that is replaced at once."""
    Authority().issue(tmp_path / "1")
    newer = Authority().issue(tmp_path / "2")
    (tmp_path / "..data").symlink_to("1")
    links = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}
    for name, link in links.items():
        link.symlink_to(f"..data/{name}.pem")
    identity = link_identity(
        newer.instance(**{f"tls_{name}": str(link) for name, link in links.items()})
    )
    assert identity
    assert identity.client != newer.client()
    (tmp_path / "..new").symlink_to("2")
    os.rename(tmp_path / "..new", tmp_path / "..data")
    identity.refresh()
    assert identity.client == newer.client()


async def test_cached_channels_are_replaced_when_certificates_change(tmp_path: Path) -> None:
    mine = Authority().issue(tmp_path)
    identity = link_identity(mine.instance())
    assert identity
    cache = ChannelCache(identity)
    async with serving(identity) as server:
        async with cache.channel(server.address) as first:
            stream = health_pb2_grpc.HealthStub(first).Watch(ASKED, timeout=TIMEOUT_S)
            states = aiter(stream)
            await anext(states)
            Authority().issue(tmp_path)
            identity.refresh()
            async with cache.channel(server.address) as second:
                assert second is not first
                await health_pb2_grpc.HealthStub(second).Check(ASKED, timeout=TIMEOUT_S)
            await server.set_serving(True)
            assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
            stream.cancel()
        # Nobody gets the old one any more: it is closed.
        async with cache.channel(server.address) as third:
            assert third is second
        assert first.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        await cache.close()
        assert second.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_renewed_channel_leaves_calls_alone(tmp_path: Path) -> None:
    mine = Authority().issue(tmp_path)
    identity = link_identity(mine.instance())
    assert identity
    async with (
        serving(identity) as server,
        RenewedChannel(server.address, identity, TIMEOUT_S) as channel,
    ):
        first = channel.current
        assert not channel.renew()
        stream = health_pb2_grpc.HealthStub(first).Watch(ASKED, timeout=TIMEOUT_S)
        states = aiter(stream)
        await anext(states)
        Authority().issue(tmp_path)
        identity.refresh()
        assert channel.renew()
        assert not channel.renew()
        await health_pb2_grpc.HealthStub(channel.current).Check(ASKED, timeout=TIMEOUT_S)
        await server.set_serving(True)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
    # Leaving ends what was left.
    assert await stream.code() is grpc.StatusCode.CANCELLED
    assert first.get_state() is grpc.ChannelConnectivity.SHUTDOWN
