"""What a client of a one-prefill, one-decode cluster may rely on."""

import asyncio
import math
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client.parser import text_string_to_metric_families

from pdserve.cli.local_cluster import LocalCluster
from pdserve.rpc.errors import DETAIL_KEY
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from tests.integration.harness import (
    PATIENT,
    TIMEOUT_S,
    assert_nothing_left,
    by_ids,
    cluster,
    generate,
    generate_all,
    greedy,
)

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

MODEL = "smollm2-135m-instruct"
MAX_MODEL_LEN = 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[tuple[LocalCluster, aio.Channel]]:
    instance = replace(PATIENT, max_model_len=MAX_MODEL_LEN)
    async with cluster(1, 1, instance) as started:
        yield started


Served = tuple[LocalCluster, aio.Channel]


def chat(text: str, sampling: types_pb2.Sampling, **options: object) -> router_pb2.GenerateRequest:
    messages = router_pb2.Chat(messages=[router_pb2.ChatMessage(role="user", content=text)])
    return router_pb2.GenerateRequest(chat=messages, sampling=sampling, **options)


async def test_a_sensible_answer_by_two_instances(served: Served) -> None:
    answer = await generate(served[1], chat("What is the capital of France?", greedy(32)))
    assert "Paris" in answer.text
    assert answer.end.reason == types_pb2.FINISH_REASON_STOP
    [attempt] = answer.end.attempts
    assert (attempt.rung, attempt.prefill, attempt.decode) == ("remote", "prefill-0", "decode-0")


async def test_the_ledger_adds_up(served: Served) -> None:
    answer = await generate(served[1], chat("Count to ten.", greedy(20)))
    ledger = answer.end.ledger
    before = (
        ledger.router_queue_s + ledger.prefill_queue_s
        + ledger.prefill_compute_s + ledger.first_token_out_s
    )  # fmt: skip
    after = (
        ledger.decode_admission_s + ledger.transfer_wait_s + ledger.transfer_s
        + ledger.decode_steps_s + ledger.recovery_s
    )  # fmt: skip
    assert math.isclose(before, ledger.ttft_s, abs_tol=1e-4)
    assert math.isclose(before + after, ledger.total_s, abs_tol=1e-4)
    assert ledger.transfer_bytes > 0
    assert ledger.prefill_compute_s > 0


async def test_stop_strings_end_the_text_before_them(served: Served) -> None:
    whole = await generate(served[1], chat("Count from one to ten.", greedy(48)))
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 4]
    cut = await generate(served[1], chat("Count from one to ten.", greedy(48), stop=[stop]))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.end.stop == stop
    assert cut.end.reason == types_pb2.FINISH_REASON_STOP


async def test_text_is_whole_characters(served: Served) -> None:
    """Bytes of one character may come in several tokens; a client never sees half of one."""
    prompt = router_pb2.GenerateRequest(
        prompt="日本語 🎉🎉🎉 日本語 🎉🎉🎉 日本語 🎉🎉", sampling=greedy(24, ignore_eos=True)
    )
    stub = router_pb2_grpc.InferenceStub(served[1])
    deltas = [event.delta.text async for event in stub.Generate(prompt, timeout=TIMEOUT_S)]
    assert "\ufffd" not in "".join(deltas[:-2])
    assert any(ord(character) > 127 for character in "".join(deltas))


async def test_seeded_sampling_repeats_and_seeds_differ(served: Served) -> None:
    def request(seed: int) -> router_pb2.GenerateRequest:
        sampling = types_pb2.Sampling(temperature=1.2, seed=seed, max_tokens=24)
        return chat("Tell me a story.", sampling)

    first, again, other = await generate_all(served[1], [request(1), request(1), request(2)])
    assert first.ids == again.ids
    assert first.ids != other.ids


async def test_logprobs(served: Served) -> None:
    answer = await generate(served[1], chat("Say hello.", greedy(5, logprobs=3)))
    for token in answer.tokens:
        best = token.top_logprobs[0]
        assert len(token.top_logprobs) == 3
        assert best.token_id == token.id
        assert math.isclose(best.logprob, token.logprob)
        assert -20 < token.logprob <= 0


async def test_max_tokens_one_needs_no_decode(served: Served) -> None:
    answer = await generate(served[1], chat("Say hello.", greedy(1)))
    assert len(answer.tokens) == 1
    assert answer.end.reason == types_pb2.FINISH_REASON_LENGTH
    await assert_nothing_left(served[0])


async def test_longest_possible_request(served: Served) -> None:
    prompt = [1000 + i for i in range(MAX_MODEL_LEN - 1)]
    answer = await generate(served[1], by_ids(prompt, greedy(1)))
    assert len(answer.tokens) == 1


async def test_models_and_cluster_are_listed(served: Served) -> None:
    stub = router_pb2_grpc.InferenceStub(served[1])
    models = await stub.ListModels(router_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    [model] = models.models
    assert (model.id, model.vocab_size, model.ready) == (MODEL, 49152, True)
    assert model.context_length == MAX_MODEL_LEN
    status = await stub.GetCluster(router_pb2.GetClusterRequest(), timeout=TIMEOUT_S)
    assert {each.report.info.name: each.state for each in status.instances} == {
        "prefill-0": "up",
        "decode-0": "up",
    }


async def test_every_process_tells_its_health_and_services(served: Served) -> None:
    services = {"prefill-0": "Prefill", "decode-0": "Decode", "router": "Inference"}
    for name, service in services.items():
        async with aio.insecure_channel(served[0].addresses[name]) as channel:
            for asked in ("", f"pdserve.v1.{service}"):
                request = health_pb2.HealthCheckRequest(service=asked)
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with grpc.insecure_channel(served[0].addresses[name]) as channel:
            known = ProtoReflectionDescriptorDatabase(channel)
            assert f"pdserve.v1.{service}" in known.get_services()
            described = DescriptorPool(known).FindServiceByName(f"pdserve.v1.{service}")
            assert described.methods


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as page:
        return page.read().decode()


async def test_metrics_count_what_happened(served: Served) -> None:
    await generate(served[1], chat("Say hello.", greedy(4, ignore_eos=True)))
    values = {}
    for process in served[0].processes.values():
        page = await asyncio.to_thread(fetch, process.facts["metrics"])
        families = list(text_string_to_metric_families(page))
        names = {family.name for family in families}
        assert all(name.startswith(("pdserve_", "process_", "python_")) for name in names), names
        for sample in (sample for family in families for sample in family.samples):
            labels = ",".join(sample.labels.values())
            values[process.role, sample.name, labels] = sample.value
    assert values["decode", "pdserve_decode_transfer_bytes_count", ""] > 0
    assert values["prefill", "pdserve_prefill_compute_seconds_count", ""] > 0
    assert values["prefill", "pdserve_kv_blocks", "active"] == 0
    assert values["prefill", "pdserve_kv_blocks", "cached"] > 0
    router = {name for role, name, _ in values if role == "router"}
    for figure in ("ttft", "itl", "tpot"):
        assert f"pdserve_router_{figure}_seconds_bucket" in router


def by_prompt(prompt: str, **sampling: object) -> router_pb2.GenerateRequest:
    return router_pb2.GenerateRequest(prompt=prompt, sampling=types_pb2.Sampling(**sampling))


BAD = {
    "no input": (router_pb2.GenerateRequest(), "input", ""),
    "empty prompt": (by_prompt(""), "prompt", ""),
    "no token ids": (by_ids([], greedy(1)), "token_ids", ""),
    "no messages": (router_pb2.GenerateRequest(chat=router_pb2.Chat()), "messages", ""),
    "unknown role": (
        router_pb2.GenerateRequest(
            chat=router_pb2.Chat(messages=[router_pb2.ChatMessage(role="cat", content="meow")])
        ),
        "messages", "",
    ),
    "token id beyond the vocabulary": (by_ids([49152], greedy(1)), "token_ids", "49151"),
    "prompt too long": (by_ids([5000] * MAX_MODEL_LEN, greedy(1)), "token_ids", "1023"),
    "max_tokens that cannot fit": (by_ids([5000], greedy(MAX_MODEL_LEN)), "max_tokens", "1023"),
    "max_tokens 0": (by_prompt("x", max_tokens=0), "max_tokens", "[1, 2147483647]"),
    "min_tokens above max_tokens": (by_prompt("x", min_tokens=9, max_tokens=8), "min_tokens", "8"),
    "negative temperature": (by_prompt("x", temperature=-1), "temperature", "[0.0, 100.0]"),
    "NaN temperature": (by_prompt("x", temperature=math.nan), "temperature", "[0.0, 100.0]"),
    "infinite temperature": (by_prompt("x", temperature=math.inf), "temperature", "[0.0, 100.0]"),
    "top_p 0": (by_prompt("x", top_p=0), "top_p", "(0.0, 1.0]"),
    "top_p above 1": (by_prompt("x", top_p=1.1), "top_p", "(0.0, 1.0]"),
    "min_p NaN": (by_prompt("x", min_p=math.nan), "min_p", "[0.0, 1.0]"),
    "repetition_penalty 0": (by_prompt("x", repetition_penalty=0), "repetition_penalty", "(0.0,"),
    "presence_penalty 3": (by_prompt("x", presence_penalty=3), "presence_penalty", "[-2.0, 2.0]"),
    "frequency_penalty -3": (by_prompt("x", frequency_penalty=-3), "frequency_penalty", "2.0]"),
    "logprobs 21": (by_prompt("x", logprobs=21), "logprobs", "[0, 20]"),
    "unknown stop id": (by_prompt("x", stop_token_ids=[49152]), "stop_token_ids", "49151"),
    "unknown biased id": (by_prompt("x", logit_bias={49152: 1}), "logit_bias", "49151"),
    "bias NaN": (by_prompt("x", logit_bias={1: math.nan}), "logit_bias", "[-100.0, 100.0]"),
    "empty stop string": (router_pb2.GenerateRequest(prompt="x", stop=[""]), "stop", ""),
    "too many stop strings": (
        router_pb2.GenerateRequest(prompt="x", stop=["a"] * 17), "stop", "16",
    ),
    "negative TTFT SLO": (
        router_pb2.GenerateRequest(prompt="x", slo=types_pb2.Slo(ttft_ms=-1)), "ttft_ms", "",
    ),
    "NaN TPOT SLO": (
        router_pb2.GenerateRequest(prompt="x", slo=types_pb2.Slo(tpot_ms=math.nan)), "tpot_ms", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
async def test_bad_input_names_field_and_limit(served: Served, kind: str) -> None:
    request, field, limit = BAD[kind]
    with pytest.raises(aio.AioRpcError) as caught:
        await generate(served[1], request)
    detail = types_pb2.ErrorDetail()
    detail.ParseFromString(dict(caught.value.trailing_metadata())[DETAIL_KEY])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in detail.field
    assert field in caught.value.details()
    assert limit in detail.limit
    assert limit in caught.value.details()


async def test_unknown_model(served: Served) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await generate(served[1], router_pb2.GenerateRequest(prompt="x", model="gpt-9"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "gpt-9" in caught.value.details()
    assert MODEL in caught.value.details()


async def test_a_deadline_is_kept(served: Served) -> None:
    stub = router_pb2_grpc.InferenceStub(served[1])
    with pytest.raises(aio.AioRpcError) as caught:
        async for _ in stub.Generate(
            chat("Tell a story.", greedy(400, ignore_eos=True)), timeout=1
        ):
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await assert_nothing_left(served[0])


async def test_refused_requests_leave_nothing(served: Served) -> None:
    for request, _, _ in BAD.values():
        with pytest.raises(aio.AioRpcError):
            await generate(served[1], request)
    await assert_nothing_left(served[0])
