"""An instance's costs are found from its own steps, whatever the steps are like."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.online import (
    MIN_DECODE_STEPS,
    MIN_PREFILL_STEPS,
    CostLearner,
    instance_cost,
)

DECODE = DecodeCost(8e-3, 1e-7, 5e-5)
COST = InstanceCost(
    tp=1,
    pp=1,
    prefill=PrefillCost(5e-3, 2e-4, 2e-8),
    decode=DECODE,
    decode_large=DECODE,
    large_from=1,
    kv_tokens=1000,
)
SHARE = 1.0 + 1e-3  # of the time that was observed, the damping included


class Observed:
    """A learner, and an instance of known cost whose steps take `factor` times as long."""

    def __init__(self, *, noise=0.0, outliers=0.0, seed=1):
        self.learner = CostLearner()
        self.factor = 1.0
        self._noise = noise
        self._outliers = outliers
        self.random = random.Random(seed)

    def _spread(self):
        hiccup = self.random.uniform(2, 30) if self.random.random() < self._outliers else 1.0
        return self.factor * hiccup * math.exp(self.random.gauss(0, self._noise))

    def prefill(self, tokens, past=0):
        squares = (past + tokens) ** 2 - past**2
        seconds = COST.prefill_s(tokens, squares) * self._spread()
        self.learner.observe(tokens, squares, 0, 0, seconds)

    def decode(self, batch, context):
        self.learner.observe(0, 0, batch, context, COST.decode_s(batch, context) * self._spread())

    def mixed(self, tokens, batch, context):
        seconds = COST.mixed_s(tokens, tokens**2, batch, context) * self._spread()
        self.learner.observe(tokens, tokens**2, batch, context, seconds)

    def many_prefills(self, steps):
        for _ in range(steps):
            self.prefill(self.random.randint(16, 512), self.random.randint(0, 6000))
            self.learner.learned()

    def many_decodes(self, steps):
        for _ in range(steps):
            batch = self.random.randint(1, 64)
            self.decode(batch, batch * self.random.randint(100, 3000))
            self.learner.learned()

    def predicts(self):
        """The instance as it has been learned."""
        return instance_cost(self.learner.learned(), COST.kv_tokens)


def coefficients(line):
    return [getattr(line, name) for name in type(line).__slots__]


def test_nothing_is_known_before_there_are_enough_steps():
    observed = Observed()
    for steps in range(MIN_PREFILL_STEPS):
        assert observed.learner.learned() is None
        observed.prefill(100 + steps)
    learned = observed.learner.learned()
    assert learned.prefill_steps == MIN_PREFILL_STEPS
    assert learned.decode_steps == 0
    assert learned.decode == DecodeCost(0.0, 0.0, 0.0)
    for steps in range(MIN_DECODE_STEPS):
        assert observed.learner.learned().decode_steps == 0
        observed.decode(1 + steps, 1000)
    assert observed.learner.learned().decode_steps == MIN_DECODE_STEPS


def test_exact_times_give_the_exact_costs():
    observed = Observed()
    observed.many_prefills(200)
    observed.many_decodes(200)
    learned = observed.learner.learned()
    assert coefficients(learned.prefill) == pytest.approx(coefficients(COST.prefill), rel=1e-3)
    assert coefficients(learned.decode) == pytest.approx(coefficients(DECODE), rel=1e-3)


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_noise_and_hiccups_cost_a_few_percent(outliers):
    observed = Observed(noise=0.03, outliers=outliers)
    observed.many_prefills(256)
    observed.many_decodes(256)
    learned = observed.learner.learned()
    assert learned.prefill.per_token_s == pytest.approx(COST.prefill.per_token_s, rel=0.05)
    assert learned.prefill.per_square_s == pytest.approx(COST.prefill.per_square_s, rel=0.05)
    assert learned.prefill.base_s == pytest.approx(COST.prefill.base_s, rel=0.2)
    assert coefficients(learned.decode) == pytest.approx(coefficients(DECODE), rel=0.1)
    cost = observed.predicts()
    for tokens in (64, 512, 2048):
        assert cost.prefill_s(tokens) == pytest.approx(COST.prefill_s(tokens), rel=0.05)
    for batch in (1, 16, 64):
        assert cost.decode_s(batch, 900 * batch) == pytest.approx(
            COST.decode_s(batch, 900 * batch), rel=0.03
        )


def test_one_step_that_took_very_long_changes_next_to_nothing():
    observed = Observed()
    observed.many_decodes(40)
    observed.factor = 1000.0
    observed.decode(8, 8000)
    observed.factor = 1.0
    observed.many_decodes(10)
    assert observed.predicts().decode_s(8, 8000) == pytest.approx(COST.decode_s(8, 8000), rel=0.01)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_machine_that_changes_its_speed_is_followed_within_200_steps(factor):
    observed = Observed(noise=0.03)
    observed.many_decodes(1000)
    observed.factor = factor
    observed.many_decodes(200)
    expected = factor * COST.decode_s(16, 16000)
    assert observed.predicts().decode_s(16, 16000) == pytest.approx(expected, rel=0.05)


def test_steps_that_are_all_alike_are_predicted_and_others_not_absurdly():
    observed = Observed(noise=0.05)
    for _ in range(5000):
        observed.prefill(512)
        observed.learner.learned()
    cost, exact = observed.predicts(), COST.prefill_s(512)
    assert cost.prefill_s(512) == pytest.approx(exact, rel=0.03)
    assert 0.1 * exact < cost.prefill_s(64) < exact
    assert exact < cost.prefill_s(1024) < 4 * exact


def test_what_was_learned_of_other_steps_is_not_lost_among_steps_that_are_all_alike():
    observed = Observed()
    observed.many_prefills(300)
    for _ in range(3000):
        observed.prefill(512)
        observed.learner.learned()
    for tokens in (32, 128, 2048):
        assert observed.predicts().prefill_s(tokens) == pytest.approx(
            COST.prefill_s(tokens), rel=0.01
        )


def test_mixed_steps_tell_of_prefill_and_change_nothing_about_decode():
    observed = Observed()
    observed.many_decodes(200)
    before = observed.learner.learned().decode
    for _ in range(200):
        batch = observed.random.randint(1, 32)
        observed.mixed(observed.random.randint(64, 512), batch, 700 * batch)
    learned = observed.learner.learned()
    assert learned.decode == before
    assert observed.predicts().prefill_s(300) == pytest.approx(COST.prefill_s(300), rel=0.01)


def test_mixed_steps_alone_teach_nothing():
    observed = Observed()
    for _ in range(50):
        observed.mixed(300, 4, 4000)
    assert observed.learner.learned() is None


def test_a_mixed_step_that_reads_weights_longer_than_it_computes_says_nothing_of_prefill():
    observed = Observed()
    observed.many_decodes(50)
    for _ in range(50):
        observed.mixed(2, 4, 4000)
    assert observed.learner.learned().prefill_steps == 0


POINT = st.tuples(
    st.integers(1, 5000),
    st.integers(1, 50_000_000),
    st.floats(1e-7, 1e3, allow_nan=False),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(POINT, min_size=3, max_size=80)
    | st.tuples(POINT, st.lists(st.floats(1e-7, 1e3), min_size=3, max_size=80)).map(
        lambda drawn: [(*drawn[0][:2], seconds) for seconds in drawn[1]]
    ),
    st.integers(1, 9),
)
def test_no_coefficient_is_ever_negative_and_no_step_slower_than_the_slowest(points, often):
    learner = CostLearner()
    for count, (tokens, squares, seconds) in enumerate(points):
        learner.observe(tokens, squares, 0, 0, seconds)
        if count % often == 0:
            learner.learned()
    line = learner.learned().prefill
    assert all(math.isfinite(value) and value >= 0 for value in coefficients(line))
    if all(point[:2] == points[0][:2] for point in points):
        slowest = max(seconds for *_, seconds in points)
        assert instance_cost(learner.learned(), 1).prefill_s(*points[0][:2]) <= slowest * SHARE


@given(st.sampled_from([0.0, -1.0]))
def test_a_step_in_which_no_time_passed_is_left_out(seconds):
    learner = CostLearner()
    for _ in range(20):
        learner.observe(10, 100, 0, 0, seconds)
        learner.observe(0, 0, 4, 100, seconds)
    assert learner.learned() is None
