"""The HTTP target against real servers: well-behaved ones, odd ones and broken ones."""

import asyncio
import json

import pytest
from aiohttp import web
from openai_server import (
    USAGE,
    OpenAiServer,
    chat_chunk,
    openai_server,
    refusing,
    stream,
    streaming,
    text_chunk,
    words,
)

from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.target import (
    IdPrompt,
    RequestError,
    TextPrompt,
    TextScale,
    TokenRange,
)
from pdserve.bench.timeline import Timeline
from pdserve.errors import InvalidRequestError, PdserveError, UnauthenticatedError, UnavailableError

IDS = IdPrompt([5, 6, 7])
ONE = USAGE | {"completion_tokens": 1}
LAST = json.dumps(text_chunk(" a", "stop")).encode()
CHAT_END = chat_chunk("stop")


async def answered(url: str, prompt=IDS, tokens: int = 4, **options: object) -> Timeline:
    target = HttpTarget(HttpOptions(url, model="m", **options))
    timeline = Timeline(keep=True)
    try:
        await target.request(prompt, tokens)(timeline)
    finally:
        await target.close()
    return timeline


async def test_a_stream_of_tokens_with_usage() -> None:
    chunks = [text_chunk(f" {n}") for n in range(4)] + [text_chunk("", "length")]
    async with openai_server(streaming(*chunks, {"choices": [], "usage": USAGE})) as server:
        seen = await answered(server.url)
    assert "".join(seen.texts) == " 0 1 2 3"
    assert len(seen.arrivals) == 4
    assert (seen.prompt_tokens, seen.tokens) == (40, 4)
    assert server.requests == [
        {
            "model": "m",
            "prompt": [5, 6, 7],
            "max_tokens": 4,
            "temperature": 0.0,
            "stream": True,
            "ignore_eos": True,
            "min_tokens": 4,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.parametrize(
    ("chunks", "arrivals", "tokens"),
    [
        # Several tokens a chunk, and usage in the last chunk with choices.
        ([text_chunk(" a b"), text_chunk(" c d", "length", usage=USAGE)], 2, 4),
        # No usage: chunks are counted.
        ([text_chunk(" a"), text_chunk(" b"), text_chunk("", "stop")], 2, 2),
        # Usage in every chunk: the last one counts.
        ([text_chunk(" a", usage=ONE), text_chunk(" b", usage=USAGE)], 2, 4),
        # Comments, other fields, carriage returns.
        ([b": ping\n\n", b"event: x\r\ndata: %s\r\n\r\n" % LAST], 1, 1),
        # Two events at once.
        ([b"data: %s\n\ndata: %s\n\n" % (LAST, LAST)], 2, 2),
        # Only tokens without text.
        ([text_chunk("", "length", usage=USAGE)], 1, 4),
        ([chat_chunk(role="assistant", content=""), chat_chunk(content="a"), CHAT_END], 1, 1),
        ([chat_chunk(reasoning_content="hm"), chat_chunk(content="a"), CHAT_END], 2, 2),
        ([chat_chunk(reasoning="hm"), chat_chunk(content=None), CHAT_END], 1, 1),
    ],
)
async def test_dialects(chunks: list, arrivals: int, tokens: int) -> None:
    async with openai_server(streaming(*chunks)) as server:
        seen = await answered(server.url)
    assert (len(seen.arrivals), seen.tokens) == (arrivals, tokens)


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_chunks_that_are_broken_anywhere(cut: int) -> None:
    data = b"".join(
        b"data: " + json.dumps(text_chunk(f" {n}"), ensure_ascii=False).encode() + b"\n\n"
        for n in ("é", "€")
    )
    async with openai_server(streaming(data[:cut], data[cut:])) as server:
        seen = await answered(server.url)
    assert "".join(seen.texts) == " é €"


async def test_a_server_may_end_without_done_but_not_without_an_end() -> None:
    async with openai_server(streaming(text_chunk(" a", "length"), done=False)) as server:
        assert (await answered(server.url)).tokens == 1
    async with openai_server(streaming(text_chunk(" a"), done=False)) as server:
        with pytest.raises(RequestError, match="cut off") as caught:
            await answered(server.url)
    assert caught.value.refusal == "failed"


async def dropped(_: OpenAiServer, request: web.Request, asked: dict) -> web.StreamResponse:
    response = await stream(request, [text_chunk(" a")], done=False)
    assert request.transport is not None
    request.transport.abort()
    return response


async def test_a_server_that_dies_in_mid_answer() -> None:
    async with openai_server(dropped) as server:
        with pytest.raises(RequestError, match=r"cut off|connection closed") as caught:
            await answered(server.url)
    assert caught.value.refusal == "failed"


@pytest.mark.parametrize(
    ("answer", "refusal", "reason"),
    [
        (refusing(429, {"error": {"message": "busy"}}), "rejected", "HTTP 429"),
        (refusing(504, {"error": "late"}), "timeout", "HTTP 504"),
        (refusing(408, {}), "timeout", "HTTP 408"),
        (refusing(500, {"error": {"message": "a bug"}}), "failed", "HTTP 500: a bug"),
        (refusing(503, {"object": "error", "message": "full"}), "failed", "HTTP 503: full"),
        (refusing(400, "plain"), "failed", "HTTP 400: plain"),
        (refusing(200, {"choices": []}), "failed", "an answer of type application/json"),
        (streaming({"error": {"message": "lost", "code": 500}}), "failed", "HTTP 500: lost"),
        (streaming({"error": {"message": "no", "code": "overloaded"}}), "rejected", "HTTP 429"),
        (streaming({"error": {"code": "deadline_exceeded"}}), "timeout", "HTTP 504"),
        (streaming({"error": "odd"}), "failed", "odd"),
        (streaming(b"data: not json\n\n"), "failed", "not a chunk of an answer: not json"),
        (streaming(b"data: [1]\n\n"), "failed", r"not a chunk of an answer: \[1\]"),
        (streaming({"choices": [7]}), "failed", "not a chunk"),
        (streaming({"choices": [], "usage": {"x": 1}}), "failed", "not a chunk"),
    ],
)
async def test_errors_are_told_apart(answer, refusal: str, reason: str) -> None:
    async with openai_server(answer) as server:
        with pytest.raises(RequestError, match=reason) as caught:
            await answered(server.url)
    assert caught.value.refusal == refusal


async def not_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"SSH-2.0-OpenSSH\r\n")
    writer.close()


async def test_nobody_there_and_somebody_else() -> None:
    server = await asyncio.start_server(not_http, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(RequestError, match="no HTTP"):
        await answered(f"http://127.0.0.1:{port}/v1")
    server.close()
    await server.wait_closed()
    with pytest.raises(RequestError, match="connection refused"):
        await answered(f"http://127.0.0.1:{port}/v1")
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}/v1: connection refused"):
        await HttpTarget(HttpOptions(f"http://127.0.0.1:{port}/v1")).prepare()


async def prepared(url: str, **options: object):
    target = HttpTarget(HttpOptions(url, **options))
    try:
        return await target.prepare()
    finally:
        await target.close()


async def test_what_is_found_out_of_a_server_that_takes_everything() -> None:
    async with openai_server(words) as server:
        facts = await prepared(server.url, tokens=TokenRange(50, 99))
        assert (facts.model, facts.prompts, facts.notes) == ("scripted", TokenRange(50, 99), ())
        chat = await prepared(server.url, api="chat")
        assert chat.prompts == TextScale(frame=5, per_word=1.0, turn=6)
        text = await prepared(server.url, text=True)
        assert text.prompts == TextScale(frame=0, per_word=1.0)
        assert (await prepared(server.url, model="own")).model == "own"
    assert server.requests[-1]["model"] == "own"


def without(*names: str):
    async def answer(server: OpenAiServer, request: web.Request, asked: dict):
        if unknown := set(names) & set(asked):
            body = {"error": {"message": f"unknown parameter: {min(unknown)}"}}
            return web.json_response(body, status=400)
        return await words(server, request, asked)

    return answer


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (["ignore_eos"], ["takes no ignore_eos"]),
        (["min_tokens"], ["takes no ignore_eos"]),
        (["stream_options"], ["takes no stream_options"]),
        (["ignore_eos", "stream_options"], ["takes no ignore_eos", "takes no stream_options"]),
    ],
)
async def test_fields_that_a_server_refuses_are_left_out(names: list, notes: list) -> None:
    async with openai_server(without(*names)) as server:
        target = HttpTarget(HttpOptions(server.url))
        facts = await target.prepare()
        await target.request(IDS, 3)(Timeline())
        await target.close()
    assert [any(note in each for each in facts.notes) for note in notes] == [True] * len(notes)
    assert len(facts.notes) == len(notes)
    assert not set(names) & set(server.requests[-1])


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (refusing(401, {"error": {"message": "who?"}}), UnauthenticatedError, "HTTP 401: who?"),
        (refusing(404, {"error": "no"}), UnavailableError, "mostly ends in /v1"),
        (
            refusing(400, {"error": {"message": "id 1 is out of range"}}),
            InvalidRequestError,
            "id 1",
        ),
        (refusing(500, {}), UnavailableError, "HTTP 500"),
    ],
)
async def test_a_server_that_cannot_be_put_under_load(
    answer, kind: type[PdserveError], text: str
) -> None:
    async with openai_server(answer) as server:
        with pytest.raises(kind, match=text):
            await prepared(server.url)


async def nothing(_: web.Request) -> web.Response:
    return web.json_response({"data": []})


async def test_a_server_that_lists_no_model() -> None:
    async with openai_server(words, nothing) as server:
        with pytest.raises(UnavailableError, match="--model names a model"):
            await prepared(server.url)
        with pytest.raises(UnavailableError, match="HTTP 404"):
            await prepared(server.url + "/v2")


async def test_chats_alternate_and_texts_go_on_where_the_answer_ended() -> None:
    prompt = TextPrompt(("one two", " three", "four"))
    async with openai_server(words) as server:
        await answered(server.url, prompt, api="chat", headers={"authorization": "Bearer k"})
        await answered(server.url, prompt, text=True)
    chat, text = server.requests
    assert chat["messages"] == [
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": " three"},
        {"role": "user", "content": "four"},
    ]
    assert text["prompt"] == "one two three four"
    headers = {name.lower(): value for name, value in server.headers[0].items()}
    assert headers["authorization"] == "Bearer k"
    assert headers["content-type"] == "application/json"
