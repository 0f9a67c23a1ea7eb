"""Sampling parameters are checked once, and the error names the field and its limit."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.errors import InvalidRequestError
from pdserve.sampling import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_STOP_TOKEN_IDS, SamplingParams

VOCAB = 200_000
EXTREMES = SamplingParams(
    temperature=100.0,
    top_k=2**31 - 1,
    top_p=1e-9,
    min_p=1.0,
    repetition_penalty=100.0,
    presence_penalty=-2.0,
    frequency_penalty=2.0,
    logit_bias={0: -100.0, VOCAB - 1: 100.0},
    seed=2**64 - 1,
    stop_token_ids=(0, VOCAB - 1),
    min_tokens=7,
    max_tokens=7,
    logprobs=MAX_LOGPROBS,
)


@pytest.mark.parametrize("params", [SamplingParams(), EXTREMES, replace(EXTREMES, logprobs=0)])
def test_values_up_to_the_limits_are_accepted(params):
    params.validate(VOCAB)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("temperature", -0.1, "[0.0, 100.0]"),
        ("temperature", math.nan, "[0.0, 100.0]"),
        ("temperature", math.inf, "[0.0, 100.0]"),
        ("top_k", -1, f"[0, {2**31 - 1}]"),
        ("top_p", 0.0, "(0.0, 1.0]"),
        ("top_p", 1.1, "(0.0, 1.0]"),
        ("top_p", math.nan, "(0.0, 1.0]"),
        ("min_p", -0.1, "[0.0, 1.0]"),
        ("min_p", 1.1, "[0.0, 1.0]"),
        ("repetition_penalty", 0.0, "(0.0, 100.0]"),
        ("repetition_penalty", math.nan, "(0.0, 100.0]"),
        ("presence_penalty", 2.1, "[-2.0, 2.0]"),
        ("frequency_penalty", -2.1, "[-2.0, 2.0]"),
        ("seed", -1, f"[0, {2**64 - 1}]"),
        ("seed", 2**64, f"[0, {2**64 - 1}]"),
        ("seed", 10**400, f"[0, {2**64 - 1}]"),
        ("max_tokens", 0, f"[1, {2**31 - 1}]"),
        ("min_tokens", -1, "[0, 16]"),
        ("min_tokens", 17, "[0, 16]"),
        ("logprobs", -1, f"[0, {MAX_LOGPROBS}]"),
        ("logprobs", MAX_LOGPROBS + 1, f"[0, {MAX_LOGPROBS}]"),
        ("stop_token_ids", (VOCAB,), f"[0, {VOCAB - 1}]"),
        ("stop_token_ids", (-1,), f"[0, {VOCAB - 1}]"),
        ("stop_token_ids", (1,) * (MAX_STOP_TOKEN_IDS + 1), f"[0, {MAX_STOP_TOKEN_IDS}]"),
        ("logit_bias", {VOCAB: 1.0}, f"[0, {VOCAB - 1}]"),
        ("logit_bias", {1: 100.5}, "[-100.0, 100.0]"),
        ("logit_bias", {1: math.nan}, "[-100.0, 100.0]"),
        ("logit_bias", dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 1.0), f"[0, {MAX_LOGIT_BIAS}]"),
    ],
)
def test_values_beyond_them_are_refused(field, value, limit):
    with pytest.raises(InvalidRequestError) as caught:
        replace(SamplingParams(), **{field: value}).validate(VOCAB)
    assert caught.value.field == field
    assert caught.value.limit == limit
    assert str(caught.value).startswith(field)
    assert limit in str(caught.value)


@given(st.floats(), st.floats(), st.floats())
def test_no_number_at_all_gets_past_unseen(temperature, top_p, penalty):
    params = SamplingParams(temperature=temperature, top_p=top_p, repetition_penalty=penalty)
    sound = 0 <= temperature <= 100 and 0 < top_p <= 1 and 0 < penalty <= 100
    try:
        params.validate(VOCAB)
    except InvalidRequestError:
        assert not sound
    else:
        assert sound


def test_only_a_temperature_of_zero_is_greedy():
    assert SamplingParams(temperature=0.0).greedy
    assert not SamplingParams(temperature=1e-9).greedy


@pytest.mark.parametrize(
    "extra",
    [{"repetition_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1}],
)
def test_any_penalty_makes_earlier_tokens_matter(extra):
    assert SamplingParams(**extra).penalized
    assert not SamplingParams().penalized
