"""The load of the overhead benchmark, against the null worker and a server that answers wrongly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.overhead_load import Shape, http, load
from benchmarks.overhead_pace import Pace
from benchmarks.overhead_worker import Worker


@asynccontextmanager
async def serving(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("stream", [True, False])
async def test_every_connection_asks_and_is_answered_in_full(stream: bool) -> None:
    shape = Shape(tokens=5, stream=stream, pace_ms=1)
    async with (
        serving(lambda: Worker(Pace())) as address,
        http(address, shape, connections=3) as asks,
    ):
        tally = await load(asks, shape, seconds=0)
    assert len(tally.times) >= 3
    assert tally.tokens == 5 * len(tally.times)
    assert all(0 < each.first <= each.total <= tally.seconds for each in tally.times)


class Refusing(asyncio.Protocol):
    """Has no room for anybody."""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        self._transport.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")


async def test_a_refusal_is_no_answer() -> None:
    shape = Shape(tokens=5, stream=False)
    async with serving(Refusing) as address, http(address, shape, connections=1) as asks:
        with pytest.raises(RuntimeError, match="429"):
            await load(asks, shape, seconds=1)


async def test_a_router_that_hangs_up_is_told() -> None:
    class Leaving(Refusing):
        def data_received(self, _: bytes) -> None:
            self._transport.close()

    shape = Shape(tokens=5, stream=True)
    async with serving(Leaving) as address, http(address, shape, connections=1) as asks:
        with pytest.raises(ConnectionError):
            await load(asks, shape, seconds=1)
