"""An OpenAI-compatible server that answers at once, or paced, with the least work it can.

For what is measured or tested around it; written on sockets alone, so that it is faster than its
clients. Run as a script it prints its URL and serves until it is killed.
"""

import argparse
import asyncio
import json
from collections.abc import Callable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = b'{"object":"list","data":[{"id":"null","object":"model"}]}'
CHUNK = (
    b'data: {"id":"cmpl-0","object":"text_completion","created":1,"model":"null",'
    b'"choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}\n\n'
)
DONE = b"data: [DONE]\n\n"


def chunked(data: bytes) -> bytes:
    """One chunk of HTTP/1.1."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class NullOpenAi(asyncio.Protocol):
    """One connection: reads requests and streams as many tokens as each asks for."""

    def __init__(self, interval_s: float, asked: Callable[[], None]) -> None:
        self._interval_s = interval_s
        self._asked = asked
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._later: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._later is not None:
            self._later.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        size = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        if len(body) < size:
            return
        self._received = body[size:]
        self._answer(head, body[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        if head.startswith(b"GET"):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(MODELS), MODELS)
            )
            return
        self._asked()
        asked = json.loads(body)
        tokens = asked["max_tokens"]
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": tokens}
        last = f'data: {{"choices":[],"usage":{json.dumps(usage)}}}\n\n'.encode()
        self._transport.write(HEAD)
        self._token(tokens, chunked(last) + chunked(DONE) + b"0\r\n\r\n", chunked(CHUNK))

    def _token(self, left: int, end: bytes, chunk: bytes) -> None:
        assert self._transport is not None
        if not left:
            self._transport.write(end)
            return
        self._transport.write(chunk)
        later: Callable[..., asyncio.TimerHandle] = asyncio.get_running_loop().call_later
        self._later = later(self._interval_s, self._token, left - 1, end, chunk)


async def start(interval_s: float, asked: Callable[[], None] = lambda: None) -> asyncio.Server:
    """A server on a free port of loopback that sends a token every `interval_s`.

    `asked` is called with each request for tokens.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: NullOpenAi(interval_s, asked), "127.0.0.1", 0, backlog=1024
    )


def url_of(server: asyncio.Server) -> str:
    """Where its API is."""
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def main(interval_s: float) -> None:
    """Serves until it is killed."""
    server = await start(interval_s)
    print(url_of(server), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interval-ms", type=float, default=0.0)
    asyncio.run(main(parser.parse_args().interval_ms / 1e3))
