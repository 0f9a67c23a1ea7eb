"""A request that nothing goes wrong with."""

import logging
from pathlib import Path

import pytest
from router_bench import bench
from router_fakes import ANSWER, EOS, OUTPUT, Script

from pdserve.logs import JsonFormatter
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.workload.read import read_trace

STOP, LENGTH = types_pb2.FINISH_REASON_STOP, types_pb2.FINISH_REASON_LENGTH


async def test_the_whole_answer_comes_in_order_and_whole_characters() -> None:
    async with bench() as it:
        answer = await it.generate("hello")
        assert [token.id for token in answer.tokens] == OUTPUT
        assert answer.indices == list(range(len(OUTPUT)))
        assert answer.text == ANSWER
        assert "\ufffd" not in "".join(event.delta.text for event in answer.events)
        assert answer.finished.reason == STOP
        assert answer.finished.prompt_tokens == 5
        assert answer.finished.output_tokens == len(OUTPUT)
        assert answer.finished.cached_tokens == 3
        attempts = answer.finished.attempts
        assert [(each.number, each.rung, each.failure) for each in attempts] == [(1, "remote", "")]
        assert (attempts[0].prefill, attempts[0].decode) == ("prefill-0", "decode-0")
        assert "prefill-0" in attempts[0].reason


async def test_instances_get_tokens_and_the_incarnation_that_is_meant() -> None:
    async with bench() as it:
        await it.generate("hi", ref=types_pb2.RequestRef(request_id="mine"))
        (prefill,), (decode,) = it.prefill[0].requests, it.decode[0].requests
        assert list(prefill.prompt_token_ids) == list(decode.prompt_token_ids) == list(b"hi")
        assert prefill.ref.request_id.startswith("mine.")
        assert prefill.ref.request_id == decode.ref.request_id
        assert prefill.ref.attempt == decode.ref.attempt == 1
        assert prefill.ref.incarnation == it.prefill[0].report.info.incarnation
        assert decode.ref.incarnation == it.decode[0].report.info.incarnation
        assert decode.kv_source.address == it.prefill[0].address.address
        assert decode.kv_source.incarnation == it.prefill[0].report.info.incarnation
        assert prefill.sampling == decode.sampling
        assert prefill.sampling.HasField("seed")
        assert prefill.sampling.max_tokens == 198


async def test_a_conversation_is_rendered_with_the_chat_template() -> None:
    async with bench() as it:
        messages = [router_pb2.ChatMessage(role="user", content="hi")]
        request = router_pb2.GenerateRequest(chat=router_pb2.Chat(messages=messages))
        async for _ in it.stub.Generate(request, timeout=20):
            pass
        assert bytes(it.prefill[0].requests[0].prompt_token_ids) == b"user:hi;"


async def test_max_tokens_end_the_output() -> None:
    async with bench() as it:
        answer = await it.generate(sampling=types_pb2.Sampling(max_tokens=7))
        assert answer.text == ANSWER[:7]
        assert answer.finished.reason == LENGTH


async def test_a_first_token_that_ends_the_output_needs_no_decode() -> None:
    async with bench() as it:
        answer = await it.generate(sampling=types_pb2.Sampling(max_tokens=1))
        assert answer.text == ANSWER[:1]
        assert answer.finished.reason == LENGTH
        assert answer.finished.ledger.ttft_s > 0


async def test_a_stop_token_id_ends_the_output() -> None:
    async with bench() as it:
        stop = types_pb2.Sampling(stop_token_ids=[ord("q")])
        answer = await it.generate(sampling=stop)
        assert answer.text == "The q"
        assert answer.finished.reason == STOP
        assert answer.finished.stop == ""


async def test_the_colocated_baseline_runs_both_phases_on_decode() -> None:
    async with bench(prefill=1, colocated=True) as it:
        answer = await it.generate()
        assert answer.text == ANSWER
        assert answer.finished.cached_tokens == 5
        assert answer.finished.attempts[0].rung == "local"
        assert it.prefill[0].requests == []
        assert not it.decode[0].requests[0].HasField("kv_source")


async def test_decode_that_is_ahead_of_prefills_own_message_waits_for_it() -> None:
    async with bench() as it:

        async def until_decode_has_sent() -> None:
            await it.until(lambda: it.decode[0].running == 0 and it.decode[0].requests)

        it.prefill[0].scripts = [Script(before={"first_token": until_decode_has_sent})]
        answer = await it.generate(sampling=types_pb2.Sampling(max_tokens=9))
        assert answer.text == ANSWER[:9]
        assert len(answer.finished.attempts) == 1


async def test_several_tokens_of_one_message_stay_together() -> None:
    async with bench() as it:
        it.decode[0].scripts = [Script(batch=10)]
        answer = await it.generate()
        assert answer.text == ANSWER
        sizes = [len(event.delta.tokens) for event in answer.events if event.delta.tokens]
        assert sizes[:3] == [1, 10, 10]


async def test_a_stop_string_over_token_borders_cuts_the_text_before_it() -> None:
    async with bench() as it:
        it.decode[0].scripts = [Script(batch=8)]
        answer = await it.generate(stop=["never", "brown"])
        assert answer.text == "The quick "
        assert answer.finished.reason == STOP
        assert answer.finished.stop == "brown"
        assert answer.finished.output_tokens == len("The quick brown") == len(answer.tokens)
        await it.until_quiet()


async def test_text_held_back_for_a_stop_string_is_not_lost() -> None:
    async with bench() as it:
        answer = await it.generate(stop=["€.!"])
        assert answer.text == ANSWER
        assert answer.finished.stop == ""


async def test_a_stop_string_does_not_count_before_min_tokens() -> None:
    async with bench() as it:
        sampling = types_pb2.Sampling(min_tokens=10, max_tokens=40)
        answer = await it.generate(stop=["he"], sampling=sampling)
        assert answer.text == "The quick brown fox jumps over t"
        assert answer.finished.stop == "he"


async def test_the_ledger_adds_up_to_ttft_and_total() -> None:
    async with bench() as it:
        ledger = (await it.generate()).finished.ledger
        before = [
            ledger.router_queue_s,
            ledger.prefill_queue_s,
            ledger.prefill_compute_s,
            ledger.first_token_out_s,
        ]
        after = [
            ledger.decode_admission_s,
            ledger.transfer_wait_s,
            ledger.transfer_s,
            ledger.decode_steps_s,
            ledger.recovery_s,
        ]
        assert abs(sum(before) - ledger.ttft_s) < 1e-6
        assert abs(sum(before + after) - ledger.total_s) < 1e-6
        assert ledger.recovery_s == 0
        assert ledger.tpot_s > 0
        assert ledger.transfer_bytes == 4096


async def test_metrics_count_what_happened() -> None:
    async with bench() as it:
        await it.generate()
        await it.until_quiet()
        assert it.metric("requests_total", outcome="stop") == 1
        assert it.metric("attempts_total", rung="remote") == 1
        assert it.metric("tokens_total") == len(OUTPUT)
        assert it.metric("ttft_seconds_count") == it.metric("e2e_seconds_count") == 1
        assert it.metric("itl_seconds_count") == len(OUTPUT) - 1
        assert it.metric("tpot_seconds_count") == it.metric("queue_seconds_count") == 1
        assert it.metric("running_requests") == 0
        assert it.metric("instances", role="decode", state="up") == 1


async def test_models_and_cluster_are_listed() -> None:
    async with bench() as it:
        (model,) = (await it.stub.ListModels(router_pb2.ListModelsRequest(), timeout=5)).models
        assert (model.id, model.context_length, model.vocab_size) == ("tiny", 200, EOS + 1)
        assert model.ready
        cluster = await it.stub.GetCluster(router_pb2.GetClusterRequest(), timeout=5)
        assert [each.state for each in cluster.instances] == ["up", "up"]
        assert cluster.instances[0].report.info.name == "prefill-0"
        assert cluster.running_requests == 0


async def test_the_log_is_a_trace_to_plan_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with bench() as it:
            for prompt in ("hello", "hi"):
                await it.generate(prompt)
    path = tmp_path / "router.log"
    path.write_text("\n".join(JsonFormatter().format(record) for record in caplog.records))
    workload = read_trace(path, "router")
    assert workload.prompt_tokens.tolist() == [5, 2]
    assert workload.output_tokens.tolist() == [len(OUTPUT)] * 2
    assert workload.duration_s > 0
