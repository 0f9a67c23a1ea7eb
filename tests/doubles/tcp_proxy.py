"""A TCP connection with a test in the middle, which passes everything on until told otherwise."""

import asyncio
import socket
import struct
from contextlib import suppress

_CHUNK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Listens on `port` of the loopback interface and passes connections on to `target_port`.

    Whoever calls `start` calls `close`. All methods belong to one event loop.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._moving = asyncio.Event()
        self._moving.set()
        self._bytes_per_s = 0.0
        self._delay_s = 0.0

    @property
    def address(self) -> str:
        """host:port to connect to."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Accepts connections."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cuts everything and listens no more."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection that there is; new ones are passed on."""
        for writers in self._connections.values():
            for writer in writers:
                _reset(writer)

    def silence(self) -> None:
        """Nothing gets through any more, in neither direction; connections stay open."""
        self._moving.clear()

    def slow_down(self, bytes_per_s: float, delay_s: float) -> None:
        """Whatever comes waits `delay_s`, and each connection carries so many bytes a second."""
        self._bytes_per_s, self._delay_s = bytes_per_s, delay_s

    def heal(self) -> None:
        """Everything is passed on as it comes."""
        self._bytes_per_s = self._delay_s = 0.0
        self._moving.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        task = asyncio.create_task(self._pass_on(reader, writers))
        self._connections[task] = writers
        task.add_done_callback(self._connections.pop)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        """`writers` are those of the connection's ends, as far as they are known."""
        try:
            await self._moving.wait()
            target = await asyncio.open_connection("127.0.0.1", self._target_port)
            writers.append(target[1])
            await self._pump_both(reader, writers[0], *target)
        except OSError:
            _reset(writers[0])  # nobody listens
        finally:
            for each in writers:
                each.close()

    async def _pump_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target_reader: asyncio.StreamReader,
        target_writer: asyncio.StreamWriter,
    ) -> None:
        pumps = [
            asyncio.create_task(self._pump(reader, target_writer)),
            asyncio.create_task(self._pump(target_reader, writer)),
        ]
        try:
            # An end that closes ends both ways: nobody here half-closes.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._moving.wait()
                if self._bytes_per_s:
                    await asyncio.sleep(self._delay_s + len(data) / self._bytes_per_s)
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST rather than FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
