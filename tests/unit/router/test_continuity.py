"""Whatever instances do, the client gets each token once and in order."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from router_bench import bench, tiny_model
from router_fakes import ANSWER, OUTPUT, Script, raising

from pdserve import errors
from pdserve.rpc.v1 import types_pb2
from services.router.output import DiscontinuityError, Output

# What an instance may fail with; prefill that is merely full is a reason to refuse the request.
FAILURES = [
    errors.UnavailableError("broken"),
    errors.TransferError("digest mismatch"),
    errors.StaleIncarnationError("meant for another life"),
    errors.PdserveError("a bug"),
]
TOKEN_STEPS = st.integers(1, len(OUTPUT) - 1)
PREFILL_STEPS = st.sampled_from(["queued", "started", "first_token", "finished"])
DECODE_STEPS = st.sampled_from(["queued", "admitted", "kv_ready", "finished"]) | TOKEN_STEPS


def twice(position: int):
    return lambda it: [*it[:position], *it[max(0, position - 1) :]]


def missing(position: int):
    return lambda it: [*it[:position], *it[position + 1 :]]


def swapped(position: int):
    return lambda it: [*it[:position], *reversed(it[position : position + 2]), *it[position + 2 :]]


def scripts(steps, failures):
    failing = st.builds(
        lambda step, error, batch: Script(before={step: raising(error)}, batch=batch),
        steps,
        st.sampled_from(failures),
        st.integers(1, 9),
    )
    mangling = st.builds(
        lambda kind, position, batch: Script(mangle=kind(position), batch=batch),
        st.sampled_from([twice, missing, swapped]),
        st.integers(0, 9),
        st.integers(1, 5),
    )
    return st.lists(failing | mangling, max_size=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    prefill=scripts(PREFILL_STEPS, FAILURES),
    decode=scripts(DECODE_STEPS, [*FAILURES, errors.OverloadedError("full")]),
)
async def test_no_token_twice_and_none_missing(prefill, decode) -> None:
    async with bench(prefill=2, decode=2, max_attempts=20) as it:
        for fakes, listed in ((it.prefill, prefill), (it.decode, decode)):
            for number, script in enumerate(listed):
                fakes[number % 2].scripts.append(script)
        answer = await it.generate()
        assert [token.id for token in answer.tokens] == OUTPUT
        assert answer.indices == list(range(len(OUTPUT)))
        assert answer.text == ANSWER
        ledger = answer.finished.ledger
        segments = [
            getattr(ledger, name)
            for name in ledger.DESCRIPTOR.fields_by_name
            if name.endswith("_s")
            and name not in ("ttft_s", "total_s", "tpot_s", "transfer_wall_s")
        ]
        assert sum(segments) == pytest.approx(ledger.total_s, abs=1e-5)


def output(stops=(), min_tokens: int = 0) -> Output:
    return Output(tiny_model().tokenizer.detokenizer(continuing=True), stops, min_tokens)


def tokens(ids, first: int = 0) -> list[types_pb2.Token]:
    return [types_pb2.Token(id=each, index=index) for index, each in enumerate(ids, first)]


@given(st.lists(st.lists(st.integers(0, 255), max_size=5)), st.integers(-3, 3))
def test_tokens_must_go_on_where_the_last_ended(messages, shift: int) -> None:
    taken = output()
    for message in messages:
        taken.take(tokens(message, len(taken.token_ids)))
    assert taken.token_ids == [each for message in messages for each in message]
    due = len(taken.token_ids)
    if shift and due + shift >= 0:
        with pytest.raises(DiscontinuityError, match=f"where {due} was due"):
            taken.take(tokens([1, 2], due + shift))
        assert len(taken.token_ids) == due


@example(text="a€b", stops=["€"], sizes=[1])
@given(
    text=st.text("abc€🙂", max_size=30),
    stops=st.lists(st.text("abc€🙂", min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 6), min_size=1),
)
def test_stop_strings_cut_the_text_at_the_first_that_is_complete(text, stops, sizes) -> None:
    ids = list(text.encode())
    taken, shown, counted = output(stops), "", 0
    while ids and taken.stop is None:
        size = sizes[counted % len(sizes)]
        piece, kept = taken.take(tokens(ids[:size], len(taken.token_ids)))
        shown, ids = shown + piece, ids[size:]
        counted += len(kept)
    shown += taken.flush()
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert (shown, taken.stop) == (text, None)
        return
    assert text.startswith(shown + taken.stop)
    assert len(shown + taken.stop) == min(ends)
    assert counted == len(text[: min(ends)].encode())
