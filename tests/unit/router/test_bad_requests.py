"""Every kind of bad input: refused at the edge, with the field and its limit, leaving nothing."""

import grpc
import pytest
from grpc import aio
from router_bench import bench
from router_fakes import Script, hang

from pdserve.rpc.errors import from_rpc_error
from pdserve.rpc.v1 import router_pb2, types_pb2

NAN, INFINITE = float("nan"), float("inf")


def sampling(**fields) -> dict:
    return {"sampling": types_pb2.Sampling(**fields)}


def chat(*messages: tuple[str, str]) -> dict:
    turns = [router_pb2.ChatMessage(role=role, content=content) for role, content in messages]
    return {"prompt": None, "chat": router_pb2.Chat(messages=turns)}


def token_ids(*ids: int) -> dict:
    return {"prompt": None, "token_ids": router_pb2.TokenIds(ids=ids)}


BAD = {
    "empty prompt": ({"prompt": ""}, "prompt", "at least 1 token"),
    "no input": ({"prompt": None}, "input", ""),
    "no token": (token_ids(), "token_ids", "at least 1 token"),
    "unknown token": (token_ids(1, 257), "token_ids", "[0, 256]"),
    "no message": (chat(), "messages", ""),
    "unknown role": (chat(("wizard", "hi")), "messages", None),
    "over-long prompt": ({"prompt": "x" * 200}, "prompt", "199"),
    "far too long": ({"prompt": "x" * 25_601}, "prompt", "25600"),
    "over-long chat": (chat(("user", "x" * 195)), "messages", "199"),
    "over-long tokens": (token_ids(*[1] * 200), "token_ids", "199"),
    "no room": ({"prompt": "x" * 100} | sampling(max_tokens=101), "max_tokens", "100"),
    "max_tokens 0": (sampling(max_tokens=0), "max_tokens", None),
    "min over max": (sampling(max_tokens=3, min_tokens=4), "min_tokens", "[0, 3]"),
    "negative temperature": (sampling(temperature=-1.0), "temperature", "[0, 100]"),
    "temperature NaN": (sampling(temperature=NAN), "temperature", "[0, 100]"),
    "top_p 0": (sampling(top_p=0.0), "top_p", "(0, 1]"),
    "top_p NaN": (sampling(top_p=NAN), "top_p", "(0, 1]"),
    "min_p": (sampling(min_p=1.5), "min_p", "[0, 1]"),
    "repetition": (sampling(repetition_penalty=0.0), "repetition_penalty", "(0, 100]"),
    "presence": (sampling(presence_penalty=INFINITE), "presence_penalty", "[-2, 2]"),
    "frequency": (sampling(frequency_penalty=-2.5), "frequency_penalty", "[-2, 2]"),
    "stop id": (sampling(stop_token_ids=[300]), "stop_token_ids", "[0, 256]"),
    "bias id": (sampling(logit_bias={300: 1.0}), "logit_bias", "[0, 256]"),
    "bias NaN": (sampling(logit_bias={3: NAN}), "logit_bias", "[-100, 100]"),
    "logprobs": (sampling(logprobs=21), "logprobs", "[0, 20]"),
    "empty stop": ({"stop": [""]}, "stop", "[1, 256]"),
    "many stops": ({"stop": ["x"] * 17}, "stop", "16"),
    "ttft NaN": ({"slo": types_pb2.Slo(ttft_ms=NAN)}, "slo.ttft_ms", "(0, inf)"),
    "tpot negative": ({"slo": types_pb2.Slo(tpot_ms=-1)}, "slo.tpot_ms", "(0, inf)"),
    "tpot infinite": ({"slo": types_pb2.Slo(tpot_ms=INFINITE)}, "slo.tpot_ms", "(0, inf)"),
    "bad id": ({"ref": types_pb2.RequestRef(request_id="a b")}, "ref.request_id", None),
    "long id": ({"ref": types_pb2.RequestRef(request_id="a" * 129)}, "ref.request_id", None),
}


async def test_what_is_wrong_is_named_with_its_limit() -> None:
    async with bench() as it:
        for name, (fields, field, limit) in BAD.items():
            with pytest.raises(aio.AioRpcError) as raised:
                await it.generate(**fields)
            error = from_rpc_error(raised.value)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert error.field == field, name
            assert limit is None or error.limit.replace(".0", "") == limit, name
            # The text alone tells what is wrong, to people who see no metadata.
            assert field in str(error), name
            in_words = ("prompt", "token_ids", "messages", "stop")
            assert field in in_words or error.limit in str(error), name
        assert it.metric("requests_total", outcome="invalid_argument") == len(BAD)
        assert all(fake.requests == [] for fake in it.instances)


async def test_an_unknown_model_is_named_with_the_one_that_is_served() -> None:
    async with bench() as it:
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate(model="huge")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert "'huge'" in raised.value.details()
        assert "'tiny'" in raised.value.details()
        for name in ("tiny", "path/to/tiny"):
            await it.generate(model=name)


async def test_a_request_id_is_unique_among_running_requests() -> None:
    async with bench() as it:
        ref = types_pb2.RequestRef(request_id="mine")
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        first = it.aside.run(it.generate(ref=ref))
        await it.until(lambda: it.prefill[0].running == 1)
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate(ref=ref)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert from_rpc_error(raised.value).field == "ref.request_id"
        first.cancel()
        await it.until_quiet()
        await it.generate(ref=ref)


async def test_more_requests_than_may_run_and_wait_are_refused() -> None:
    async with bench(max_running=1, max_queued=0) as it:
        it.prefill[0].scripts = [Script(before={"queued": hang})]
        first = it.aside.run(it.generate())
        await it.until(lambda: it.prefill[0].running == 1)
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = from_rpc_error(raised.value)
        assert (error.field, error.limit) == ("max_queued", "0")
        assert error.retry_after_s > 0
        first.cancel()


async def test_the_smaller_of_models_and_instances_context_is_the_limit() -> None:
    async with bench() as it:
        it.decode[0].report.info.max_model_len = 50
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        await it.decode[0].start()
        await it.until_state(it.decode[0], "up")
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate("x" * 50)
        assert from_rpc_error(raised.value).limit == "49"
        answer = await it.generate("x" * 40)
        assert answer.finished.output_tokens == 10


async def test_a_long_prompt_is_tokenized_like_a_short_one() -> None:
    async with bench() as it:
        long = "ab" * 2500
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate(long)
        assert "prompt has 5000 tokens" in raised.value.details()
