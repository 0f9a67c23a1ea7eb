"""`POST /v1/chat/completions`, whole and in chunks."""

import pytest
from http_client import http_bench
from router_fakes import ANSWER, OUTPUT


async def test_an_answer_in_one_piece() -> None:
    async with http_bench() as (it, client):
        reply = await client.chat(model="path/to/tiny")
        assert reply.status == 200
        assert reply.body["object"] == "chat.completion"
        assert reply.body["id"] == f"chatcmpl-{reply.headers['x-request-id']}"
        assert reply.choices == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ANSWER, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert reply.body["usage"]["completion_tokens"] == len(OUTPUT)
        assert bytes(it.prefill[0].requests[0].prompt_token_ids) == b"user:hello;"


async def test_chunks_begin_with_the_role_and_end_with_the_reason() -> None:
    async with http_bench() as (_, client):
        chunks = (await client.chat(stream=True)).chunks
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        first, *middle, last = [chunk["choices"][0] for chunk in chunks]
        assert first["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"]["content"] for choice in middle) == ANSWER
        assert (last["delta"], last["finish_reason"]) == ({}, "stop")
        # Tokens that make no whole character yet are no chunk.
        assert all(choice["delta"]["content"] for choice in middle)


async def test_content_is_text_or_parts_of_text() -> None:
    async with http_bench() as (it, client):
        messages = [
            {"role": "system", "content": "be"},
            {"role": "developer", "content": [{"type": "text", "text": "b"}]},
            {
                "role": "user",
                "name": "me",
                "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}],
            },
            {"role": "assistant", "content": "", "refusal": None, "tool_calls": []},
        ]
        assert (await client.chat(messages, max_tokens=1)).status == 200
        prompt = bytes(it.prefill[0].requests[0].prompt_token_ids)
        assert prompt == b"system:be;developer:b;user:hi;assistant:;"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_both_names_of_the_limit(name: str) -> None:
    async with http_bench() as (_, client):
        reply = await client.chat(**{name: 7})
        assert reply.choices[0]["message"]["content"] == ANSWER[:7]
        assert reply.choices[0]["finish_reason"] == "length"
        refused = await client.chat(**{name: 190})
        assert (refused.status, refused.error["param"]) == (400, name)


async def test_without_a_limit_the_context_is_it() -> None:
    async with http_bench() as (it, client):
        await client.chat()
        assert it.prefill[0].requests[0].sampling.max_tokens == 200 - len("user:hello;")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_an_answer(stream: bool) -> None:
    async with http_bench() as (_, client):
        reply = await client.chat(logprobs=True, top_logprobs=3, stream=stream)
        choices = [each["choices"][0] for each in reply.chunks] if stream else reply.choices
        content = [
            entry
            for choice in choices
            if choice["logprobs"]
            for entry in choice["logprobs"]["content"]
        ]
        assert len(content) == len(OUTPUT)
        assert content[0] == {
            "token": "T",
            "logprob": -0.5,
            "bytes": [ord("T")],
            "top_logprobs": [
                {"token": "T", "logprob": -0.5, "bytes": [ord("T")]},
                {"token": "!", "logprob": -9999.0, "bytes": [ord("!")]},
                {"token": "\ufffd", "logprob": -3.0, "bytes": [0xE2]},
            ],
        }
        assert bytes(byte for entry in content[:-1] for byte in entry["bytes"]).decode() == ANSWER
        assert content[-1]["token"] == "<end>"


async def test_logprobs_without_a_number_are_the_tokens_own() -> None:
    async with http_bench() as (_, client):
        reply = await client.chat(logprobs=True, max_tokens=1)
        (entry,) = reply.choices[0]["logprobs"]["content"]
        assert (entry["token"], entry["top_logprobs"]) == ("T", [])


async def test_what_asks_for_nothing_is_accepted() -> None:
    async with http_bench() as (_, client):
        reply = await client.chat(
            max_tokens=1,
            tools=[],
            tool_choice="none",
            parallel_tool_calls=True,
            response_format={"type": "text"},
            modalities=["text"],
            reasoning_effort=None,
            prompt_cache_key="x",
            safety_identifier="y",
        )
        assert reply.status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_explain_shows_the_ledger_and_the_attempts(stream: bool) -> None:
    async with http_bench() as (_, client):
        fields = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "stream": stream}
        reply = await client.post("/v1/chat/completions", fields, x_pdserve_explain="1")
        body = reply.chunks[-1] if stream else reply.body
        first, second = body["pdserve"]["choices"]
        assert (first["index"], second["index"]) == (0, 1)
        ledger = first["ledger"]
        assert 0 < ledger["ttft_s"] <= ledger["total_s"]
        assert ledger["recovery_s"] == 0
        (attempt,) = first["attempts"]
        assert (attempt["rung"], attempt["prefill"]) == ("remote", "prefill-0")
        assert "prefill-0" in attempt["reason"]


async def test_slos_travel_as_headers() -> None:
    async with http_bench() as (it, client):
        fields = {"messages": [{"role": "user", "content": "hi"}]}
        path = "/v1/chat/completions"
        await client.post(path, fields, x_pdserve_ttft_ms="250", x_pdserve_tpot_ms="12.5")
        slo = it.prefill[0].requests[0].slo
        assert (slo.ttft_ms, slo.tpot_ms) == (250, 12.5)
        await client.post(path, fields)
        assert not it.prefill[0].requests[1].slo.HasField("ttft_ms")
