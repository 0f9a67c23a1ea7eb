import socket

import pytest

from pdserve.cli.reserved_port import ReservedPort
from pdserve.errors import ConfigError
from pdserve.rpc.server import RpcServer


async def test_a_server_that_names_the_port_gets_it_again_and_again() -> None:
    port = ReservedPort("127.0.0.1")
    for _ in range(2):
        server = RpcServer("127.0.0.1", port.number, [])
        await server.start()
        assert server.port == port.number
        await server.stop(0.0)
    port.release()


def test_nobody_gets_the_port_by_chance() -> None:
    ports = [ReservedPort("127.0.0.1") for _ in range(64)]
    strangers = [socket.socket() for _ in range(256)]
    for stranger in strangers:
        stranger.bind(("127.0.0.1", 0))
    reserved = {port.number for port in ports}
    assert len(reserved) == 64
    assert not reserved & {stranger.getsockname()[1] for stranger in strangers}
    for stranger in strangers:
        stranger.close()
    for port in ports:
        port.release()


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ConfigError, match="in use"):
        ReservedPort("127.0.0.1", busy.getsockname()[1])
