"""Load on a router by as little work as possible: connections that ask again once answered."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, TypeAlias

from grpc import aio

from benchmarks.client import TIMEOUT_S
from benchmarks.overhead_instances import MODEL
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import decode_pb2, router_pb2, types_pb2

PROMPT_TOKENS = 128
_PROMPTS = 512
_WORDS = (
    *("the", "of", "and", "to", "in", "is", "was", "for", "on", "that"),
    *("with", "as", "his", "they", "be", "at", "one", "have", "this", "from"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked for: so many tokens, in a stream or in one piece, at once or at a pace."""

    tokens: int
    stream: bool
    pace_ms: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from sending a request to the first token, and to the end of the answer."""

    first: float
    total: float


@dataclass(slots=True)
class Tally:
    """What a load got answered, within `seconds`."""

    seconds: float = 0.0
    tokens: int = 0
    times: list[Times] = field(default_factory=list)


Ask: TypeAlias = Callable[[], Awaitable[Times]]


async def load(asks: list[Ask], shape: Shape, seconds: float) -> Tally:
    """Asks on every connection, at least once; after `seconds` only what runs is finished."""
    tally = Tally()
    began = time.perf_counter()

    async def keep_asking(ask: Ask) -> None:
        while True:
            tally.times.append(await ask())
            tally.tokens += shape.tokens
            if time.perf_counter() >= began + seconds:
                return

    await asyncio.gather(*map(keep_asking, asks))
    tally.seconds = time.perf_counter() - began
    return tally


def prompts(seed: int) -> Iterator[str]:
    """Texts of about `PROMPT_TOKENS` tokens, each with a beginning of its own, over and over."""
    rng = random.Random(seed)
    texts = [
        f"{rng.randrange(10**6)} " + " ".join(rng.choices(_WORDS, k=PROMPT_TOKENS - 4))
        for _ in range(_PROMPTS)
    ]
    return cycle(texts)


class HttpConnection(asyncio.Protocol):
    """One connection to OpenAI's completions: a request at a time."""

    def __init__(self, model: str, shape: Shape, seed: int) -> None:
        texts = prompts(seed)
        self._requests = cycle([_http_request(model, shape, next(texts)) for _ in range(_PROMPTS)])
        self._stream = shape.stream
        self._transport: Any = None
        self._answer: asyncio.Future[Times] | None = None
        self._received = bytearray()
        self._length = 0
        self._sent = self._first = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("the router has closed the connection"))

    def ask(self) -> Awaitable[Times]:
        """Sends the next request; the result is there once the answer is complete."""
        self._answer = asyncio.get_running_loop().create_future()
        self._received, self._length, self._first = bytearray(), 0, 0.0
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._first and (b"data:" in self._received or not self._stream):
            self._first = time.perf_counter()
            if not self._received.startswith(b"HTTP/1.1 200"):
                self._fail(RuntimeError(f"not answered but {bytes(self._received[:500])!r}"))
        if self._stream:
            complete = self._received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            complete = self._whole()
        if complete and self._answer and not self._answer.done():
            now = time.perf_counter()
            if b'"length"' not in self._received:
                self._fail(RuntimeError(f"no complete answer: {bytes(self._received[-500:])!r}"))
                return
            self._answer.set_result(Times(self._first - self._sent, now - self._sent))

    def _whole(self) -> bool:
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and not self._length:
            self._length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return bool(found) and len(body) >= self._length

    def _fail(self, error: Exception) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error)

    def close(self) -> None:
        """Ends the connection."""
        self._transport.abort()


def _http_request(model: str, shape: Shape, prompt: str) -> bytes:
    fields = {
        "model": model,
        "prompt": prompt,
        "max_tokens": shape.tokens,
        "stream": shape.stream,
        "ignore_eos": True,
        "temperature": 0,
        "seed": shape.pace_ms,
    }
    body = json.dumps(fields).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def http(address: str, shape: Shape, connections: int, model: str = MODEL) -> Any:
    """`Ask`s of so many connections to `address`, host:port."""
    host, _, port = address.rpartition(":")
    opened: list[HttpConnection] = []
    loop = asyncio.get_running_loop()
    try:
        for number in range(connections):
            connection = HttpConnection(model, shape, number)
            await loop.create_connection(lambda it=connection: it, host, int(port))
            opened.append(connection)
        yield [connection.ask for connection in opened]
    finally:
        for connection in opened:
            connection.close()


@asynccontextmanager
async def grpc(address: str, shape: Shape, connections: int) -> Any:
    """`Ask`s of so many callers on one channel to the router; messages are not even parsed."""
    async with open_channel(address) as channel:
        method = channel.unary_stream("/pdserve.v1.Inference/Generate")
        yield [_caller(method, shape, number) for number in range(connections)]


def _caller(method: Any, shape: Shape, seed: int) -> Ask:
    texts = prompts(seed)
    messages = cycle(
        [
            router_pb2.GenerateRequest(
                prompt=next(texts), sampling=_sampling(shape)
            ).SerializeToString()
            for _ in range(_PROMPTS)
        ]
    )

    async def ask() -> Times:
        return await _timed(method(next(messages), timeout=TIMEOUT_S), events_before_first=0)

    return ask


@asynccontextmanager
async def decode(address: str, shape: Shape) -> Any:
    """One `Ask` of the decode instance itself, with local prefill: no router is in between."""
    async with open_channel(address) as channel:
        method = channel.unary_stream("/pdserve.v1.Decode/Run")
        numbers = iter(range(10**9))

        async def ask() -> Times:
            request = decode_pb2.DecodeRequest(
                ref=types_pb2.RequestRef(request_id=f"direct-{next(numbers)}", attempt=1),
                prompt_token_ids=range(1000, 1000 + PROMPT_TOKENS),
                sampling=_sampling(shape),
            )
            # It says first that it has admitted the request.
            call = method(request.SerializeToString(), timeout=TIMEOUT_S)
            return await _timed(call, events_before_first=1)

        yield [ask]


async def _timed(call: "aio.UnaryStreamCall[bytes, bytes]", *, events_before_first: int) -> Times:
    sent, first, events = time.perf_counter(), 0.0, 0
    async for _ in call:
        if events == events_before_first:
            first = time.perf_counter() - sent
        events += 1
    return Times(first, time.perf_counter() - sent)


def _sampling(shape: Shape) -> types_pb2.Sampling:
    return types_pb2.Sampling(
        temperature=0, max_tokens=shape.tokens, ignore_eos=True, seed=shape.pace_ms
    )
