"""What an instance's passes cost, against sums done by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_models import instance

from pdserve.latency.cost import Dispatch

bounded = settings(max_examples=40, deadline=None)
counts = st.integers(1, 4096)
coefficients = st.tuples(st.floats(0, 1), st.floats(0, 1e-3), st.floats(0, 1e-3))


def test_a_prefill_pass_counts_tokens_and_squares():
    cost = instance(prefill=(1.0, 0.1, 0.01))
    assert cost.prefill_s(10) == pytest.approx(1 + 1 + 1)
    assert cost.prefill_s(10, squares=20**2 - 10**2) == pytest.approx(1 + 1 + 3)


def test_chunks_pay_the_base_again_and_attention_once():
    """Σ ((past + new)² − past²) of the chunks is that of the whole prompt."""
    cost = instance(prefill=(1.0, 0.1, 0.01))
    chunks = cost.prefill_s(6, squares=36) + cost.prefill_s(4, squares=10**2 - 6**2)
    assert chunks == pytest.approx(cost.prefill_s(10) + 1.0)


def test_stages_add_their_own_time_and_share_the_pass():
    cost = instance(prefill=(1.0, 0.1, 0.0), pp=4, stage_s=0.25, dispatch=Dispatch(0.5, 0.01))
    assert cost.gpus == 4
    assert cost.prefill_s(10) == pytest.approx(0.5 + 0.1 + 1 + 1 + 4 * 0.25)


def test_a_decode_step_counts_sequences_and_context():
    assert instance(decode=(1.0, 0.001, 0.1)).decode_s(4, 400) == pytest.approx(1 + 0.4 + 0.4)


def test_groups_of_a_pipeline_read_all_weights_and_part_of_the_kv():
    cost = instance(decode=(1.0, 0.001, 0.1), pp=2, dispatch=Dispatch(0.5))
    assert cost.decode_s(4, 400) == pytest.approx(1 + 0.2 + 0.2 + 2 * 0.5)


@pytest.mark.parametrize(
    ("pp", "batch", "seconds"), [(1, 7, 1.0), (1, 8, 2.0), (2, 8, 1.0), (2, 16, 2.0)]
)
def test_large_steps_are_those_whose_group_is_large(pp, batch, seconds):
    cost = instance(decode=(1.0, 0, 0), decode_large=(2.0, 0, 0), large_from=8, pp=pp)
    assert cost.decode_s(batch, batch) == pytest.approx(seconds)


@bounded
@given(coefficients, coefficients, counts, counts, counts)
def test_a_mixed_step_is_between_the_longer_of_its_parts_and_their_sum(
    prefill, decode, tokens, batch, length
):
    cost = instance(prefill=prefill, decode=decode)
    batch, context = batch % 64 + 1, (batch % 64 + 1) * length
    alone = cost.prefill_s(tokens)
    step = cost.decode_s(batch, context)
    mixed = cost.mixed_s(tokens, tokens**2, batch, context)
    assert mixed >= max(alone, step) * (1 - 1e-9)
    assert mixed <= (alone + step + prefill[1] * batch) * (1 + 1e-9)


@bounded
@given(coefficients, counts, counts)
def test_more_tokens_never_take_less_time(prefill, few, more):
    cost = instance(prefill=prefill)
    assert cost.prefill_s(few) <= cost.prefill_s(few + more)
