"""`POST /v1/completions`, whole and in chunks."""

import asyncio

import pytest
from http_client import COMPLETIONS, http_bench
from router_fakes import ANSWER, OUTPUT, Script


async def test_a_completion_in_one_piece() -> None:
    async with http_bench() as (_, client):
        reply = await client.complete()
        assert reply.status == 200
        body = reply.body
        assert body["object"] == "text_completion"
        assert body["id"] == f"cmpl-{reply.headers['x-request-id']}"
        assert body["model"] == "tiny"
        assert body["created"] > 1_600_000_000
        assert body["choices"] == [
            {"index": 0, "text": ANSWER, "logprobs": None, "finish_reason": "stop"}
        ]
        assert body["usage"] == {
            "prompt_tokens": 5,
            "completion_tokens": len(OUTPUT),
            "total_tokens": 5 + len(OUTPUT),
            "prompt_tokens_details": {"cached_tokens": 3},
        }
        assert "pdserve" not in body


async def test_chunks_join_to_the_text_and_the_last_tells_why() -> None:
    async with http_bench() as (_, client):
        reply = await client.complete(stream=True)
        chunks = reply.chunks
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert {chunk["object"] for chunk in chunks} == {"text_completion"}
        choices = [chunk["choices"][0] for chunk in chunks]
        assert "".join(choice["text"] for choice in choices) == ANSWER
        assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
        assert choices[-1] == {
            "index": 0,
            "text": "",
            "logprobs": None,
            "finish_reason": "stop",
        }
        assert all("usage" not in chunk for chunk in chunks)


async def test_usage_comes_in_a_chunk_of_its_own() -> None:
    async with http_bench() as (_, client):
        reply = await client.complete(
            stream=True,
            max_tokens=4,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
        *chunks, last = reply.chunks
        assert {chunk["usage"] for chunk in chunks} == {None}
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == 9


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("hi", [b"hi"]),
        (["hi", "you"], [b"hi", b"you"]),
        ([104, 105], [b"hi"]),
        ([[104, 105], [106]], [b"hi", b"j"]),
    ],
)
async def test_every_form_of_prompt(prompt: object, tokens: list[bytes]) -> None:
    async with http_bench() as (it, client):
        reply = await client.complete(prompt, max_tokens=3)
        assert [choice["text"] for choice in reply.choices] == ["The"] * len(tokens)
        got = [bytes(request.prompt_token_ids) for request in it.prefill[0].requests]
        assert sorted(got) == sorted(tokens)
        assert reply.body["usage"]["prompt_tokens"] == sum(map(len, tokens))
        assert reply.body["usage"]["completion_tokens"] == 3 * len(tokens)


async def test_choices_are_runs_of_their_own_with_seeds_of_their_own() -> None:
    async with http_bench() as (it, client):
        reply = await client.complete(["a", "b"], n=3, seed=7, max_tokens=2, best_of=3)
        assert [choice["index"] for choice in reply.choices] == list(range(6))
        # A prompt counts once, however many choices it has.
        assert reply.body["usage"]["prompt_tokens"] == 2
        assert reply.body["usage"]["completion_tokens"] == 12
        seeds = {(bytes(run.prompt_token_ids), run.sampling.seed) for run in it.prefill[0].requests}
        assert seeds == {(prompt, seed) for prompt in (b"a", b"b") for seed in (7, 8, 9)}
        ids = {run.ref.request_id.rpartition(".")[0] for run in it.prefill[0].requests}
        assert ids == {f"{reply.headers['x-request-id']}-{number}" for number in range(6)}


async def test_choices_stream_side_by_side() -> None:
    async with http_bench() as (_, client):
        texts = {0: "", 1: "", 2: ""}
        reasons = {}
        for chunk in (await client.complete(n=3, stream=True)).chunks:
            (choice,) = chunk["choices"]
            texts[choice["index"]] += choice["text"]
            if choice["finish_reason"]:
                reasons[choice["index"]] = choice["finish_reason"]
        assert texts == dict.fromkeys(range(3), ANSWER)
        assert reasons == dict.fromkeys(range(3), "stop")


async def test_choices_are_bounded() -> None:
    async with http_bench(max_running=1, max_queued=3) as (it, client):
        for fields in ({"n": 5}, {"n": 129}, {"n": 0}, {"prompt": ["x"] * 5}):
            reply = await client.post(COMPLETIONS, {"prompt": "x"} | fields)
            assert (reply.status, reply.error["param"]) == (400, "n")
        assert it.prefill[0].requests == []
        assert (await client.complete("x", n=4)).status == 200


async def test_the_fields_arrive_where_tokens_are_chosen() -> None:
    async with http_bench() as (it, client):
        await client.complete(
            temperature=0.5,
            top_p=0.25,
            top_k=-1,
            min_p=0.125,
            frequency_penalty=-1,
            presence_penalty=1.5,
            repetition_penalty=1.25,
            logit_bias={"104": -100, "105": 1.5},
            seed=-1,
            max_tokens=9,
            min_tokens=3,
            ignore_eos=True,
            stop_token_ids=[1, 2],
            logprobs=4,
            user="me",
            metadata={"a": "b"},
            store=True,
            service_tier="auto",
        )
        sampling = it.prefill[0].requests[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.25, 0)
        assert (sampling.min_p, sampling.repetition_penalty) == (0.125, 1.25)
        assert (sampling.frequency_penalty, sampling.presence_penalty) == (-1, 1.5)
        assert dict(sampling.logit_bias) == {104: -100, 105: 1.5}
        assert (sampling.seed, sampling.max_tokens, sampling.min_tokens) == (2**64 - 1, 9, 3)
        assert (sampling.ignore_eos, sampling.logprobs) == (True, 4)
        assert list(sampling.stop_token_ids) == [1, 2]


async def test_null_is_the_same_as_nothing() -> None:
    async with http_bench() as (it, client):
        names = ("n", "stop", "seed", "logprobs", "temperature", "echo", "suffix", "best_of")
        reply = await client.complete(max_tokens=None, **dict.fromkeys(names))
        assert reply.status == 200
        # What OpenAI's API says of a text without max_tokens.
        assert it.prefill[0].requests[0].sampling.max_tokens == 16


@pytest.mark.parametrize("stop", ["brown", ["never", "brown"]])
@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings_end_the_text_before_them(stop: object, stream: bool) -> None:
    async with http_bench() as (it, client):
        it.decode[0].scripts = [Script(batch=8)]
        reply = await client.complete(stop=stop, stream=stream)
        choices = [each["choices"][0] for each in reply.chunks] if stream else reply.choices
        assert "".join(choice["text"] for choice in choices) == "The quick "
        assert choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_a_completion(stream: bool) -> None:
    async with http_bench() as (_, client):
        reply = await client.complete(logprobs=2, stream=stream)
        pieces = [each["choices"][0] for each in reply.chunks] if stream else reply.choices
        joined = {
            name: [each for piece in pieces for each in piece["logprobs"][name]]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        assert joined["tokens"][:4] == ["T", "h", "e", " "]
        # Bytes of one character are tokens of their own here; "<end>" is no text.
        assert joined["tokens"][-5:] == [
            "bytes:\\xe2",
            "bytes:\\x82",
            "bytes:\\xac",
            ".",
            "<end>",
        ]
        assert set(joined["token_logprobs"]) == {-0.5}
        assert joined["top_logprobs"][0] == {"T": -0.5, "!": -9999.0}
        euro = ANSWER.index("€")
        assert joined["text_offset"][-5:] == [euro, euro, euro, euro + 1, euro + 2]
        assert "".join(piece["text"] for piece in pieces) == ANSWER


async def test_logprobs_0_is_that_of_the_token_alone() -> None:
    async with http_bench() as (_, client):
        reply = await client.complete(logprobs=0, max_tokens=1)
        assert reply.choices[0]["logprobs"]["top_logprobs"] == [{"T": -0.5}]


async def test_the_first_token_counts_from_when_the_client_can_see_it() -> None:
    async with http_bench() as (it, client):
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            reached.set()
            await go_on.wait()

        # Until then the text may be the beginning of the stop string, and is held back.
        it.decode[0].scripts = [Script(before={4: pause})]
        asked = it.aside.run(client.complete(stream=True, stop="The slow"))
        await reached.wait()
        await it.until(lambda: it.metric("tokens_total") == 4)
        assert it.metric("ttft_seconds_count") == 0
        go_on.set()
        assert (await asked).chunks[0]["choices"][0]["text"] == "The q"
        assert it.metric("ttft_seconds_count") == 1


async def test_an_answer_without_text_is_seen_at_its_end() -> None:
    async with http_bench() as (it, client):
        reply = await client.complete(stream=True, stop="T")
        (chunk,) = reply.chunks
        assert (chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) == ("", "stop")
        assert it.metric("ttft_seconds_count") == 1
