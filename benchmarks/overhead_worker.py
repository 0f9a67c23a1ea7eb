"""A null HTTP worker: `python -m benchmarks.overhead_worker` answers OpenAI completions at once.

What stands behind a router of whole HTTP requests. It is no web framework but as little as does it:
one write for each token of a stream, as an engine that has computed one would.
"""

import asyncio
import json
import os
from typing import Any

from benchmarks.overhead_pace import Pace

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_INFO = json.dumps({"model_path": "null", "served_model_name": "null", "status": "ready"}).encode()


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _answer(tokens: int) -> bytes:
    usage = {"prompt_tokens": 128, "completion_tokens": tokens, "total_tokens": 128 + tokens}
    return json.dumps(
        {
            "id": "cmpl-null",
            "object": "text_completion",
            "created": 1,
            "model": "null",
            "choices": [_choice(" word" * tokens, "length")],
            "usage": usage,
        }
    ).encode()


def _chunk(text: str, reason: str | None = None) -> bytes:
    document = {
        "id": "cmpl-null",
        "object": "text_completion",
        "created": 1,
        "model": "null",
        "choices": [_choice(text, reason)],
    }
    data = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


_TOKEN, _END = _chunk(" word"), _chunk("", "length")


class Worker(asyncio.Protocol):
    """One connection: requests come one after the other."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._received = b""
        self._room = asyncio.Event()
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._room.set()

    def connection_lost(self, _: Exception | None) -> None:
        if self._streaming:
            self._streaming.cancel()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.startswith(b"PRI "):
            self._transport.abort()  # HTTP/2, tried out
            return
        head, complete, rest = self._received.partition(b"\r\n\r\n")
        if not complete:
            return
        name = b"content-length:"
        length = next(
            (int(line[len(name) :]) for line in head.split(b"\r\n") if _is(line, name)), 0
        )
        if len(rest) < length:
            return
        self._received = rest[length:]
        self._respond(head, rest[:length])

    def _respond(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"POST"):
            self._transport.write(_HEAD % (len(_INFO), _INFO))
            return
        request = json.loads(body)
        if request.get("stream"):
            work = self._stream(request["max_tokens"], request.get("seed", 0))
            self._streaming = asyncio.get_running_loop().create_task(work)
            return
        answer = _answer(request["max_tokens"])
        self._transport.write(_HEAD % (len(answer), answer))

    async def _stream(self, tokens: int, seed: int) -> None:
        write = self._transport.write
        write(_STREAM_HEAD)
        for _ in range(tokens):
            await self._pace.wait(seed)
            await self._room.wait()
            write(_TOKEN)
        write(_END + _LAST)


def _is(line: bytes, name: bytes) -> bool:
    return line[: len(name)].lower() == name


async def main() -> None:
    """Serves until the process is ended; prints where, once it does: two addresses, one each."""
    pace = Pace()
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Worker(pace), "127.0.0.1", 0) for _ in range(2)]
    first, second = (f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
    print(f"ready {first} {second} pid={os.getpid()}", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
