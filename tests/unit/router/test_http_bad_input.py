"""Whatever bytes a client sends: a clear 4xx or an answer, never a 500, and nothing is left."""

import asyncio
import json

import pytest
from http_client import CHAT, COMPLETIONS, HELLO, Client, Reply, http_bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 150

PATHS = st.sampled_from([COMPLETIONS, CHAT])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 300)
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "user", "text", "x" * 300, 10**400, -0.0]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = [
    *("prompt", "messages", "model", "max_tokens", "max_completion_tokens", "n", "best_of"),
    *("stream", "stream_options", "stop", "stop_token_ids", "seed", "temperature", "top_p"),
    *("top_k", "min_p", "logprobs", "top_logprobs", "logit_bias", "ignore_eos", "min_tokens"),
    *("echo", "suffix", "tools", "response_format", "user", "presence_penalty"),
]
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "tool"]) | VALUES, "content": VALUES}
    ),
    max_size=2,
)
BODIES = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), VALUES, max_size=5)


@st.composite
def documents(draw: st.DrawFn) -> dict:
    """Bodies of which some are nearly right, so that every later check is reached as well."""
    body = {"max_tokens": 2}
    body |= draw(st.sampled_from([{}, {"prompt": "x"}, {"messages": HELLO}]))
    return (
        body | draw(BODIES) | draw(st.just({}) | st.builds(lambda it: {"messages": it}, MESSAGES))
    )


def check(reply: Reply) -> None:
    if reply.status == 200:
        return
    assert 400 <= reply.status < 500, reply.text
    error = reply.error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.fixture(scope="module")
def loop_runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def client(loop_runner):
    """One router for all examples; it checks at the end that nothing is left."""
    opened = http_bench()
    _, client = loop_runner.run(opened.__aenter__())
    yield client
    loop_runner.run(opened.__aexit__(None, None, None))


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, data=st.binary(max_size=200))
def test_any_bytes(loop_runner: asyncio.Runner, client: Client, path: str, data: bytes) -> None:
    check(loop_runner.run(client.send("POST", path, data)))


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, document=documents())
def test_any_document(
    loop_runner: asyncio.Runner, client: Client, path: str, document: dict
) -> None:
    check(loop_runner.run(client.send("POST", path, json.dumps(document).encode())))


HEADERS = (
    "x-request-id",
    "x-pdserve-ttft-ms",
    "x-pdserve-tpot-ms",
    "x-pdserve-timeout-s",
    "x-pdserve-explain",
    "content-type",
    "authorization",
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(HEADERS), value=TEXTS | st.floats().map(str))
def test_any_header(loop_runner: asyncio.Runner, client: Client, name: str, value: str) -> None:
    body = b'{"prompt": "x", "max_tokens": 2}'
    reply = loop_runner.run(client.send("POST", COMPLETIONS, body, **{name: value}))
    if name == "x-pdserve-timeout-s" and reply.status == 504:
        return  # a deadline that is only too short
    check(reply)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=100))
def test_bytes_that_are_no_http(loop_runner: asyncio.Runner, client: Client, data: bytes) -> None:
    async def exchange() -> bytes:
        host, _, port = client.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data + b"\r\n\r\n")
        writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    answer = loop_runner.run(exchange())
    assert not answer.startswith(b"HTTP/1.1 5")
