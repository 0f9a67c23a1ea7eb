"""Whatever an HTTP client does wrong: anything anywhere in documents, and half of a request."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from http_client import CHAT, COMPLETIONS, Client, Reply, http_bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from router_bench import Bench

EXAMPLES = 120

COMPLETION = {
    "model": "tiny",
    "prompt": ["hello", "you"],
    "max_tokens": 3,
    "n": 1,
    "stop": ["zzz"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 7,
    "logit_bias": {"5": 1},
    "logprobs": 2,
    "stop_token_ids": [9],
    "presence_penalty": 0.1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "me",
}
CHATTING = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "me"},
    ],
    "max_completion_tokens": 3,
    "logprobs": True,
    "top_logprobs": 2,
    "tools": None,
    "response_format": {"type": "text"},
}
VALID = [(COMPLETIONS, COMPLETION), (CHAT, CHATTING)]

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "\ud800", "", -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
# What may not stand in JSON, or not there.
PIECES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [
            b"NaN",
            b"-Infinity",
            b"1e999",
            b"\xff",
            b"\xc3(",
            b"\\ud800",
            b'"',
            b"{",
            b"]",
            b",",
            b"\x00",
        ]
    ),
    st.integers(1, 5000).map(lambda depth: b"[" * depth),
    st.integers(1, 6000).map(lambda digits: b"9" * digits),
)


def places(node: object, path: tuple = ()) -> list[tuple]:
    """The path of every value in a document, the outermost left out."""
    found = [path] if path else []
    children = {dict: lambda: node.items(), list: lambda: enumerate(node)}.get(type(node))
    for key, child in children() if children else ():
        found += places(child, (*path, key))
    return found


@st.composite
def misfits(draw: st.DrawFn) -> tuple[str, bytes]:
    """A valid document with something else in one place."""
    path, document = draw(st.sampled_from(VALID))
    document = copy.deepcopy(document)
    *way, last = draw(st.sampled_from(places(document)))
    node = document
    for step in way:
        node = node[step]
    node[last] = draw(ANYTHING)
    return path, json.dumps(document).encode()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """The text of a valid document with a piece cut out or put in, or a part of it twice."""
    path, document = draw(st.sampled_from(VALID))
    text = json.dumps(document).encode()
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, min(len(text), begin + 30)))
    middle = draw(PIECES | st.just(text[begin:end] * 2))
    return path, text[:begin] + middle + text[end:]


def check(reply: Reply) -> None:
    if reply.status == 200:
        return
    assert 400 <= reply.status < 500, reply.text
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.error["message"]


@pytest.fixture(scope="module")
def loop_runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def opened(loop_runner):
    """One router for all examples; it checks at the end that nothing is left."""
    context = http_bench()
    yield loop_runner.run(context.__aenter__())
    loop_runner.run(context.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def client(opened) -> Client:
    return opened[1]


@pytest.fixture(scope="module")
def it(opened) -> Bench:
    return opened[0]


many = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("path", "document"), VALID)
def test_what_is_varied_is_valid(loop_runner, client, path: str, document: dict) -> None:
    assert loop_runner.run(client.post(path, document)).status == 200


@many
@given(request=misfits())
def test_anything_anywhere(loop_runner, client, request: tuple[str, bytes]) -> None:
    check(loop_runner.run(client.send("POST", *request)))


@many
@given(request=damaged())
def test_damaged_documents(loop_runner, client, request: tuple[str, bytes]) -> None:
    check(loop_runner.run(client.send("POST", *request)))


@few
@given(
    content_type=st.sampled_from(
        [
            "text/plain",
            "application/xml",
            "",
            "application/json; charset=latin-1",
            "multipart/form-data",
        ]
    )
    | st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True),
    encoding=st.sampled_from(["", "gzip", "deflate", "br", "nonsense"]),
)
def test_other_types_and_encodings(loop_runner, client, content_type: str, encoding: str) -> None:
    headers = {"Content-Type": content_type} | ({"Content-Encoding": encoding} if encoding else {})
    body = json.dumps(COMPLETION).encode()
    reply = loop_runner.run(client.send("POST", COMPLETIONS, body, **headers))
    if reply.status == 200 or reply.headers["Content-Type"].startswith("application/json"):
        check(reply)
    else:  # the HTTP parser could not unpack it, and says so before anyone looks at the request
        assert encoding
        assert (reply.status, bool(reply.text)) == (400, True)


@few
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "WOMBLE"]),
    path=st.sampled_from(
        [
            "/",
            "/v1",
            "/v1/models",
            "/v1/models/x",
            "/v1/pdserve/requests/x",
            "/metrics",
            "/health",
            CHAT,
        ]
    )
    | st.from_regex(r"/[a-z0-9%./-]{0,20}", fullmatch=True),
)
def test_other_methods_and_paths(loop_runner, client, method: str, path: str) -> None:
    reply = loop_runner.run(client.send(method, path, None))
    assert reply.status < 500


# What a client may send and then leave, or go on with; the router must outlive it and forget it.
BODY = json.dumps({"prompt": "x", "max_tokens": 2}).encode()


def head(length: int, *more: bytes) -> bytes:
    lines = [
        b"POST /v1/completions HTTP/1.1",
        b"Host: x",
        b"Content-Type: application/json",
        b"Content-Length: %d" % length,
        *more,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


WHOLE = head(len(BODY)) + BODY


@asynccontextmanager
async def connection(
    client: Client,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = client.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""


async def still_serves(client: Client, it: Bench) -> None:
    assert (await client.complete("x", max_tokens=2)).status == 200
    await it.until_quiet()


@few
@given(cut=st.integers(0, len(WHOLE)), reset=st.booleans())
def test_a_request_that_breaks_off_anywhere(loop_runner, client, it, cut: int, reset: bool) -> None:
    async def exchange() -> None:
        async with connection(client) as (reader, writer):
            writer.write(WHOLE[:cut])
            if reset:
                await writer.drain()
                return
            writer.write_eof()
            answer = await read_all(reader)
            assert not answer.startswith(b"HTTP/1.1 5")

    loop_runner.run(exchange())
    loop_runner.run(still_serves(client, it))


@few
@given(pauses=st.lists(st.integers(1, len(WHOLE) - 1), max_size=20).map(sorted))
def test_a_request_that_comes_in_pieces(loop_runner, client, pauses: list[int]) -> None:
    async def exchange() -> bytes:
        async with connection(client) as (reader, writer):
            for begin, end in zip([0, *pauses], [*pauses, len(WHOLE)], strict=True):
                writer.write(WHOLE[begin:end])
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.readline(), 20)

    assert loop_runner.run(exchange()) == b"HTTP/1.1 200 OK\r\n"


@few
@given(garbage=st.binary(min_size=1, max_size=60))
def test_garbage_behind_a_request(loop_runner, client, it, garbage: bytes) -> None:
    async def exchange() -> bytes:
        async with connection(client) as (reader, writer):
            writer.write(WHOLE + garbage)
            writer.write_eof()
            return await read_all(reader)

    answer = loop_runner.run(exchange())
    assert b"HTTP/1.1 5" not in answer
    loop_runner.run(still_serves(client, it))


def test_many_connections_that_say_nothing(loop_runner, client, it) -> None:
    async def exchange() -> None:
        idle = [connection(client) for _ in range(100)]
        opened = [await each.__aenter__() for each in idle]
        for number, (_, writer) in enumerate(opened):
            writer.write(head(1000)[: number % len(head(1000))])
        await still_serves(client, it)
        for each in idle:
            await each.__aexit__(None, None, None)
        await still_serves(client, it)

    loop_runner.run(exchange())


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: -1"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 99999999999999999999"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Transfer-Encoding: gibberish"],
        [b"X-Long: " + b"x" * 20_000],
        [b"X-Control: a\x00b"],
        [b"no colon"],
    ],
    ids=lambda lines: lines[0][:30].decode(),
)
def test_headers_that_contradict(loop_runner, client, it, lines: list[bytes]) -> None:
    async def exchange() -> bytes:
        async with connection(client) as (reader, writer):
            first = [
                b"POST /v1/completions HTTP/1.1",
                b"Host: x",
                b"Content-Type: application/json",
            ]
            writer.write(b"\r\n".join([*first, *lines]) + b"\r\n\r\n" + BODY)
            writer.write_eof()
            return await read_all(reader)

    answer = loop_runner.run(exchange())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
    loop_runner.run(still_serves(client, it))
