"""Costs are found again from the times that they predict, noisy or not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, PrefillCost
from pdserve.latency.fit import fit_decode, fit_prefill

bounded = settings(max_examples=40, deadline=None)
TOKENS = np.array([1, 16, 64, 256, 512, 1024, 2048, 4096], dtype=float)
BATCH, LENGTH = (
    grid.ravel() for grid in np.meshgrid([1, 2, 4, 8, 16, 32, 64, 128], [64, 512, 2048])
)
CONTEXT = BATCH * LENGTH


def prefill_s(cost: PrefillCost, tokens, squares):
    return cost.base_s + cost.per_token_s * tokens + cost.per_square_s * squares


def decode_s(cost: DecodeCost, batch, context):
    return cost.base_s + cost.per_context_token_s * context + cost.per_sequence_s * batch


prefill_costs = st.builds(
    PrefillCost, st.floats(1e-3, 0.1), st.floats(1e-6, 1e-3), st.floats(1e-10, 1e-7)
)
decode_costs = st.builds(
    DecodeCost, st.floats(1e-3, 0.1), st.floats(1e-8, 1e-6), st.floats(1e-6, 1e-3)
)


@bounded
@given(prefill_costs)
def test_a_prefill_cost_is_found_again(cost):
    found, error = fit_prefill(TOKENS, TOKENS**2, prefill_s(cost, TOKENS, TOKENS**2))
    assert found.base_s == pytest.approx(cost.base_s, rel=1e-6)
    assert found.per_token_s == pytest.approx(cost.per_token_s, rel=1e-5)
    assert found.per_square_s == pytest.approx(cost.per_square_s, rel=1e-4)
    assert error.maximum < 1e-6
    assert error.observations == TOKENS.size


@bounded
@given(decode_costs)
def test_one_regime_gives_the_same_cost_twice(cost):
    small, large, large_from, error = fit_decode(BATCH, CONTEXT, decode_s(cost, BATCH, CONTEXT))
    assert small == large
    assert large_from > BATCH.max()
    assert small.base_s == pytest.approx(cost.base_s, rel=1e-5)
    assert error.maximum < 1e-5


@bounded
@given(decode_costs, st.sampled_from([4, 16, 64]), st.floats(3, 10))
def test_the_threshold_between_two_regimes_is_found(cost, threshold, slope):
    steep = DecodeCost(cost.base_s * slope, cost.per_context_token_s, cost.per_sequence_s * slope)
    seconds = np.where(
        threshold > BATCH, decode_s(cost, BATCH, CONTEXT), decode_s(steep, BATCH, CONTEXT)
    )
    small, large, large_from, error = fit_decode(BATCH, CONTEXT, seconds)
    assert large_from == threshold
    assert small.base_s == pytest.approx(cost.base_s, rel=1e-4)
    assert large.base_s == pytest.approx(steep.base_s, rel=1e-4)
    assert error.maximum < 1e-5


@bounded
@given(st.lists(st.floats(1e-4, 1.0), min_size=8, max_size=8))
def test_coefficients_are_never_negative(seconds):
    cost, _ = fit_prefill(TOKENS, TOKENS**2, seconds)
    assert min(cost.base_s, cost.per_token_s, cost.per_square_s) >= 0


def test_short_passes_count_as_much_as_long_ones():
    """Where the form does not fit, least squares of seconds would give the short passes away."""
    seconds = np.where(TOKENS <= 64, 1e-3, 1e-3 * (TOKENS / 64) ** 1.5)
    cost, error = fit_prefill(TOKENS, TOKENS**2, seconds)
    assert prefill_s(cost, 1, 1) == pytest.approx(1e-3, rel=0.5)
    assert error.median <= error.maximum < 0.6


def test_noise_is_averaged_and_reported():
    rng = np.random.default_rng(0)
    cost = DecodeCost(5e-3, 1e-7, 1e-4)
    seconds = decode_s(cost, BATCH, CONTEXT) * rng.normal(1, 0.02, BATCH.size)
    small, large, large_from, error = fit_decode(BATCH, CONTEXT, seconds)
    for batch, context in ((1, 1024), (16, 16384), (128, 65536)):
        found = large if batch >= large_from else small
        assert decode_s(found, batch, context) == pytest.approx(
            decode_s(cost, batch, context), rel=0.05
        )
    assert 0 < error.median < 0.03
    assert error.maximum < 0.1


def test_observations_of_one_batch_size_still_give_a_cost():
    cost = DecodeCost(5e-3, 1e-7, 0.0)
    small, _, _, error = fit_decode(np.full(4, 8.0), TOKENS[:4], decode_s(cost, 8, TOKENS[:4]))
    assert decode_s(small, 8, 100) == pytest.approx(decode_s(cost, 8, 100), rel=1e-6)
    assert error.maximum < 1e-6


@pytest.mark.parametrize(
    ("tokens", "seconds", "field"),
    [
        ([1.0, 2.0], [1.0, 2.0], "seconds"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "tokens"),
        ([1.0, 2.0, 3.0], [1.0, 0.0, 2.0], "seconds"),
        ([1.0, float("nan"), 3.0], [1.0, 1.0, 2.0], "tokens"),
    ],
)
def test_unusable_observations_are_refused(tokens, seconds, field):
    with pytest.raises(ConfigError) as caught:
        fit_prefill(tokens, np.ones(len(tokens)), seconds)
    assert caught.value.field == field
