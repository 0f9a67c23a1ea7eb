"""Every error of the HTTP API: its status, its object, and that it names what is wrong."""

import json
import socket

import pytest
from http_client import CHAT, COMPLETIONS, HELLO, http_bench
from router_fakes import Script, hang, raising

from pdserve import errors

PIECE = {"type": "text", "text": "x"}


def message(**fields: object) -> dict:
    return {"messages": [{"role": "user", "content": "x"} | fields]}


# Body besides prompt or messages, the parameter that is named, the code.
BAD_COMPLETIONS = {
    "no prompt": ({"prompt": None}, "prompt", "missing_required_parameter"),
    "empty prompt": ({"prompt": ""}, "prompt", "invalid_value"),
    "empty prompts": ({"prompt": []}, "prompt", "invalid_value"),
    "empty ids": ({"prompt": [[]]}, "prompt", "invalid_value"),
    "mixed prompts": ({"prompt": ["x", 1]}, "prompt[1]", "invalid_type"),
    "mixed ids": ({"prompt": [1, "x"]}, "prompt", "invalid_type"),
    "mixed lists": ({"prompt": [[1], 1]}, "prompt[1]", "invalid_type"),
    "a number": ({"prompt": 5}, "prompt", "invalid_type"),
    "booleans": ({"prompt": [True]}, "prompt", "invalid_type"),
    "negative id": ({"prompt": [-1]}, "prompt", "invalid_value"),
    "huge id": ({"prompt": [2**40]}, "prompt", "invalid_value"),
    "unknown id": ({"prompt": [257]}, "prompt", "invalid_value"),
    "too long": ({"prompt": "x" * 200}, "prompt", "invalid_value"),
    "surrogate": ({"prompt": "\ud800"}, "prompt", "invalid_value"),
    "no room": ({"max_tokens": 300}, "max_tokens", "invalid_value"),
    "max_tokens 0": ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    "max_tokens 1.5": ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    "max_tokens text": ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
    "n true": ({"n": True}, "n", "invalid_type"),
    "stream 1": ({"stream": 1}, "stream", "invalid_type"),
    "temperature": ({"temperature": -1}, "temperature", "invalid_value"),
    "hot": ({"temperature": 10**400}, "temperature", "invalid_value"),
    "top_p": ({"top_p": 0}, "top_p", "invalid_value"),
    "top_k": ({"top_k": -2}, "top_k", "invalid_value"),
    "min_p": ({"min_p": 2}, "min_p", "invalid_value"),
    "repetition": ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
    "frequency": ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value"),
    "presence": ({"presence_penalty": "1"}, "presence_penalty", "invalid_type"),
    "bias key": ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
    "bias id": ({"logit_bias": {"300": 1}}, "logit_bias", "invalid_value"),
    "bias": ({"logit_bias": {"3": 101}}, "logit_bias", "invalid_value"),
    "bias type": ({"logit_bias": {"3": "1"}}, "logit_bias.3", "invalid_type"),
    "biases": ({"logit_bias": [1]}, "logit_bias", "invalid_type"),
    "logprobs": ({"logprobs": 21}, "logprobs", "invalid_value"),
    "logprobs true": ({"logprobs": True}, "logprobs", "invalid_type"),
    "seed": ({"seed": 2**64}, "seed", "invalid_value"),
    "stop": ({"stop": 5}, "stop", "invalid_type"),
    "stops": ({"stop": ["a", None]}, "stop[1]", "invalid_type"),
    "empty stop": ({"stop": ""}, "stop", "invalid_value"),
    "many stops": ({"stop": ["x"] * 17}, "stop", "invalid_value"),
    "stop ids": ({"stop_token_ids": 3}, "stop_token_ids", "invalid_type"),
    "stop id": ({"stop_token_ids": [300]}, "stop_token_ids", "invalid_value"),
    "min_tokens": ({"min_tokens": 99}, "min_tokens", "invalid_value"),
    "echo": ({"echo": True}, "echo", "unsupported_parameter"),
    "suffix": ({"suffix": "x"}, "suffix", "unsupported_parameter"),
    "best_of": ({"best_of": 2}, "best_of", "unsupported_parameter"),
    "unknown": ({"wings": 2}, "wings", "unknown_parameter"),
    "chat's": ({"messages": HELLO}, "messages", "unknown_parameter"),
    "model": ({"model": 5}, "model", "invalid_type"),
    "options": ({"stream_options": {}}, "stream_options", "invalid_value"),
    "unknown option": (
        {"stream": True, "stream_options": {"x": 1}},
        "stream_options.x",
        "unknown_parameter",
    ),
}

BAD_CHATS = {
    "no messages": ({"messages": None}, "messages", "missing_required_parameter"),
    "empty": ({"messages": []}, "messages", "invalid_value"),
    "text": ({"messages": "hi"}, "messages", "invalid_type"),
    "texts": ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
    "no role": (message(role=None), "messages[0].role", "missing_required_parameter"),
    "role": (message(role="wizard"), "messages[0].role", "invalid_value"),
    "tool": (message(role="tool"), "messages[0].role", "invalid_value"),
    "no content": (message(content=None), "messages[0].content", "missing_required_parameter"),
    "content": (message(content=5), "messages[0].content", "invalid_type"),
    "surrogate": (message(content="\udc00"), "messages[0].content", "invalid_value"),
    "part": (message(content=["x"]), "messages[0].content[0]", "invalid_type"),
    "image": (
        message(content=[PIECE, {"type": "image_url"}]),
        "messages[0].content[1].type",
        "unsupported_value",
    ),
    "calls": (message(tool_calls=[{}]), "messages[0].tool_calls", "unsupported_parameter"),
    "unknown in message": (message(wings=1), "messages[0].wings", "unknown_parameter"),
    "tools": ({"tools": [{}]}, "tools", "unsupported_parameter"),
    "functions": ({"functions": [{}]}, "functions", "unsupported_parameter"),
    "format": (
        {"response_format": {"type": "json_object"}},
        "response_format",
        "unsupported_parameter",
    ),
    "modalities": ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    "audio": ({"audio": {}}, "audio", "unsupported_parameter"),
    "prediction": ({"prediction": {}}, "prediction", "unsupported_parameter"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    "top_logprobs": (
        {"logprobs": True, "top_logprobs": 21},
        "top_logprobs",
        "invalid_value",
    ),
    "logprobs 1": ({"logprobs": 1}, "logprobs", "invalid_type"),
    "two limits": (
        {"max_tokens": 1, "max_completion_tokens": 2},
        "max_tokens",
        "invalid_value",
    ),
    "prompt": ({"prompt": "x"}, "prompt", "unknown_parameter"),
    "over-long": (message(content="x" * 200), "messages", "invalid_value"),
}


@pytest.mark.parametrize("stream", [None, True])
@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (COMPLETIONS, {"prompt": "x"}, BAD_COMPLETIONS),
        (CHAT, {"messages": HELLO}, BAD_CHATS),
    ],
)
async def test_what_is_wrong_is_named(path: str, good: dict, bad: dict, stream: object) -> None:
    async with http_bench() as (it, client):
        for name, (fields, param, code) in bad.items():
            if stream and name in ("stream 1", "options"):
                continue
            reply = await client.post(path, good | {"stream": stream} | fields)
            assert reply.status == 400, (name, reply.text)
            error = reply.error
            assert set(error) == {"message", "type", "param", "code"}
            assert (error["type"], error["param"], error["code"]) == (
                "invalid_request_error",
                param,
                code,
            ), name
            assert error["message"], name
            assert reply.headers["x-request-id"]
        assert all(fake.requests == [] for fake in it.instances)


BODIES = {
    b"": "not valid JSON",
    b"{": "not valid JSON",
    b"{} {}": "not valid JSON",
    b"[]": "must be a JSON object",
    b"null": "must be a JSON object",
    b'"x"': "must be a JSON object",
    b"\xff\xfe": "not valid UTF-8",
    b'{"prompt": "\xc3("}': "not valid UTF-8",
    b'{"prompt": "x", "top_p": NaN}': "holds NaN",
    b'{"prompt": "x", "top_p": -Infinity}': "holds -Infinity",
    b'{"prompt": "x", "top_p": 1e999}': "top_p is larger",
    b'{"prompt": "x", "prompt": "y"}': "'prompt' is there twice",
    b'{"prompt": "x", "metadata": {"a": 1, "a": 2}}': "'a' is there twice",
    b"[" * 100_000: "nested too deeply",
    b'{"seed": ' + b"9" * 5000 + b"}": "thousands of digits",
    b'{"prompt": "x", "seed": ' + b"9" * 500 + b"}": "more than 30 digits",
}


async def test_a_body_that_is_no_json_object_is_refused_with_the_reason() -> None:
    async with http_bench() as (_, client):
        for body, words in BODIES.items():
            reply = await client.send("POST", COMPLETIONS, body)
            assert reply.status == 400, body[:50]
            assert words in reply.error["message"], body[:50]
            assert reply.error["type"] == "invalid_request_error"


async def test_errors_of_http_itself_have_the_same_shape() -> None:
    async with http_bench(max_body_bytes=2048) as (_, client):
        body = json.dumps({"prompt": "x"}).encode()
        reply = await client.send("POST", COMPLETIONS, body, Content_Type="text/plain")
        assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")
        assert "application/json" in reply.error["message"]
        reply = await client.post(COMPLETIONS, {"prompt": "x" * 3000})
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        assert "2048" in reply.error["message"]
        reply = await client.get("/v1/embeddings")
        assert (reply.status, reply.error["code"]) == (404, "unknown_url")
        assert "/v1/embeddings" in reply.error["message"]
        reply = await client.get(COMPLETIONS)
        assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
        assert reply.headers["Allow"] == "POST"


async def test_a_body_without_a_length_is_bounded_too() -> None:
    async with http_bench(max_body_bytes=2048) as (it, _):
        with socket.create_connection(("127.0.0.1", it.router.http.port)) as raw:
            raw.setblocking(False)
            chunk = b"400\r\n" + b" " * 0x400 + b"\r\n"
            head = (
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            raw.send(head + chunk * 3)
            await it.until(lambda: _peek(raw).startswith(b"HTTP/1.1 413"))


def _peek(raw: socket.socket) -> bytes:
    try:
        return raw.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


async def test_an_unknown_model_is_not_found() -> None:
    async with http_bench() as (_, client):
        reply = await client.complete(model="huge")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert reply.error["param"] == "model"
        assert "'tiny'" in reply.error["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-pdserve-ttft-ms", "soon"),
        ("x-pdserve-ttft-ms", "nan"),
        ("x-pdserve-tpot-ms", "-1"),
        ("x-pdserve-tpot-ms", "inf"),
        ("x-pdserve-timeout-s", "0"),
        ("x-pdserve-explain", "yes"),
        ("x-request-id", "a b"),
        ("x-request-id", "x" * 121),
    ],
)
async def test_a_wrong_header_is_named(name: str, value: str) -> None:
    async with http_bench() as (_, client):
        reply = await client.send("POST", COMPLETIONS, b'{"prompt": "x"}', **{name: value})
        assert (reply.status, reply.error["param"]) == (400, name)
        assert name in reply.error["message"]


async def test_a_request_id_is_kept_and_given_back() -> None:
    async with http_bench() as (it, client):
        reply = await client.post(COMPLETIONS, {"prompt": "x"}, x_request_id="mine")
        assert reply.headers["x-request-id"] == "mine"
        assert reply.body["id"] == "cmpl-mine"
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        first = it.aside.run(client.post(COMPLETIONS, {"prompt": "x"}, x_request_id="mine"))
        await it.until(lambda: it.prefill[0].running == 1)
        reply = await client.post(COMPLETIONS, {"prompt": "x"}, x_request_id="mine")
        assert (reply.status, reply.error["param"]) == (400, "x-request-id")
        first.cancel()


@pytest.mark.parametrize("stream", [False, True])
async def test_overload_says_when_to_come_back(stream: bool) -> None:
    async with http_bench(max_running=1, max_queued=0) as (it, client):
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        first = it.aside.run(client.complete())
        await it.until(lambda: it.prefill[0].running == 1)
        reply = await client.complete(stream=stream)
        assert (reply.status, reply.error["code"]) == (429, "overloaded")
        assert int(reply.headers["Retry-After"]) >= 1
        first.cancel()


async def test_a_fleet_that_cannot_serve_is_unavailable() -> None:
    async with http_bench(placement_timeout_s=0.1) as (it, client):
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        reply = await client.complete()
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        assert reply.error["type"] == "server_error"
        assert int(reply.headers["Retry-After"]) >= 1
        await it.decode[0].start()
        await it.until_state(it.decode[0], "up")


async def test_the_deadline_of_a_header_ends_a_request_that_hangs() -> None:
    async with http_bench() as (it, client):
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        fields = {"prompt": "x"}
        reply = await client.post(COMPLETIONS, fields, x_pdserve_timeout_s="0.2")
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
        # OpenAI's clients would try it twice more.
        assert reply.headers["x-should-retry"] == "false"
        await it.until_quiet()


async def test_the_routers_own_deadline_is_the_longest() -> None:
    async with http_bench(request_timeout_s=0.2) as (it, client):
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        reply = await client.post(COMPLETIONS, {"prompt": "x"}, x_pdserve_timeout_s="9999")
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
async def test_a_failure_in_mid_stream_is_the_last_event(path: str) -> None:
    async with http_bench(max_attempts=1) as (it, client):
        broken = raising(errors.UnavailableError("broken"))
        it.decode[0].scripts = [Script(before={9: broken})]
        inputs = {COMPLETIONS: {"prompt": "x"}, CHAT: {"messages": HELLO}}[path]
        reply = await client.post(path, inputs | {"stream": True, "max_tokens": 50})
        assert reply.status == 200
        *before, last = reply.events
        assert len(before) >= 9
        error = json.loads(last)["error"]
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
        assert "[DONE]" not in reply.events


async def test_one_choice_that_fails_ends_the_others() -> None:
    async with http_bench(max_attempts=1) as (it, client):
        broken = raising(errors.UnavailableError("broken"))
        it.prefill[0].scripts = [Script(before={"queued": hang}), Script(before={"queued": broken})]
        reply = await client.complete(n=2)
        assert reply.status == 503
        await it.until_quiet()


async def test_a_bug_is_told_as_one_and_nothing_more(monkeypatch) -> None:
    async with http_bench() as (it, client):

        def fail(*_: object) -> None:
            raise RuntimeError("a secret of the house")

        monkeypatch.setattr("services.router.http.generation.completions_order", fail)
        reply = await client.complete()
        assert (reply.status, reply.error["code"]) == (500, "internal")
        assert "secret" not in reply.text
        await it.until_quiet()
