"""Drawn workloads have the figures that were asked for. Seeds are fixed: nothing here is flaky."""

from itertools import pairwise

import numpy as np
import pytest
from workloads import blocks_of, workload

from pdserve.errors import ConfigError
from pdserve.workload.arrivals import (
    Arrivals,
    FixedArrivals,
    GammaArrivals,
    OnOffArrivals,
    PoissonArrivals,
)
from pdserve.workload.conversations import Conversations
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import (
    EmpiricalLengths,
    FixedLengths,
    IndependentLengths,
    LognormalLengths,
    UniformLengths,
)
from pdserve.workload.shared_prefix import cacheable_tokens
from pdserve.workload.summary import index_of_dispersion, summarize
from pdserve.workload.workload import Workload

FIXED = IndependentLengths(FixedLengths(100), FixedLengths(10))
BURSTS = OnOffArrivals(on=10, off=1, on_s=20, off_s=40)


def drawn(arrivals: Arrivals, requests: int = 100_000, rate: float | None = None) -> Workload:
    return draw_workload(WorkloadSpec(requests, FIXED, arrivals, rate, seed=7))


@pytest.mark.parametrize(
    ("arrivals", "cv"),
    [
        (PoissonArrivals(), 1.0),
        (GammaArrivals(3.0), 3.0),
        (GammaArrivals(0.5), 0.5),
        (FixedArrivals(), 0.0),
    ],
)
def test_renewal_processes_have_their_rate_and_cv(arrivals: Arrivals, cv: float) -> None:
    made = drawn(arrivals, rate=4.0)
    assert made.arrival_s[0] == 0
    assert made.rate == pytest.approx(4.0, rel=0.03)
    gaps = np.diff(made.arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-6)


def test_bursts_have_the_mean_of_both_rates_and_come_in_windows() -> None:
    made = drawn(BURSTS)
    assert BURSTS.default_rate == pytest.approx(4.0)
    assert made.rate == pytest.approx(4.0, rel=0.05)
    # The index of dispersion of the two-state process, over windows of t seconds: Fischer and
    # Meier-Hellstern 1993, with the mean rate 4, the difference 9 and the rates of change below.
    leave_on, leave_off, t = 1 / 20, 1 / 40, 10.0
    both = leave_on + leave_off
    limit = 2 * 9**2 * leave_on * leave_off / (both**3 * 4.0)
    expected = 1 + limit * (1 - (1 - np.exp(-both * t)) / (both * t))
    assert index_of_dispersion(made, t) == pytest.approx(expected, rel=0.05)


def test_bursts_are_scaled_to_the_rate_but_last_as_long() -> None:
    assert drawn(BURSTS, 200_000, rate=1.0).rate == pytest.approx(1.0, rel=0.05)
    # 400,000 requests at 100/s are 67 bursts of 20 s, so that the rate is a rough one.
    assert drawn(BURSTS, 400_000, rate=100.0).rate == pytest.approx(100.0, rel=0.3)


def test_nothing_arrives_while_a_process_with_a_rate_of_0_is_off() -> None:
    made = drawn(OnOffArrivals(on=50, off=0, on_s=1, off_s=100), 5000)
    gaps = np.diff(made.arrival_s)
    assert (gaps > 1).sum() == pytest.approx(100, abs=30)
    assert gaps[gaps > 1].mean() == pytest.approx(100, rel=0.25)


def test_one_request_is_a_workload() -> None:
    for arrivals in (PoissonArrivals(), GammaArrivals(2), FixedArrivals(), BURSTS):
        assert drawn(arrivals, 1).arrival_s.tolist() == [0]


def test_the_same_seed_draws_the_same_workload_and_another_one_does_not() -> None:
    def draw(seed: int, arrivals: Arrivals = BURSTS) -> Workload:
        lengths = IndependentLengths(LognormalLengths(755, 1), UniformLengths(10, 200))
        spec = WorkloadSpec(
            500, lengths, arrivals, 2.0, Conversations(system_tokens=600), seed=seed
        )
        return draw_workload(spec)

    one, same, other = draw(1), draw(1), draw(2)
    for column in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one, column), getattr(same, column))
        assert not np.array_equal(getattr(one, column), getattr(other, column))
    assert blocks_of(one.prefix) == blocks_of(same.prefix)
    otherwise = draw(1, PoissonArrivals())
    assert np.array_equal(one.prompt_tokens, otherwise.prompt_tokens)
    assert not np.array_equal(one.arrival_s, otherwise.arrival_s)


def test_lognormal_lengths_have_the_mean_and_the_percentiles() -> None:
    rng = np.random.default_rng(3)
    tokens = LognormalLengths(755, 1).draw(rng, 200_000)
    assert tokens.mean() == pytest.approx(755, rel=0.02)
    assert np.log(tokens).std() == pytest.approx(1, rel=0.02)
    tokens = LognormalLengths.from_percentiles(400, 4000).draw(rng, 200_000)
    assert np.percentile(tokens, (50, 99)) == pytest.approx([400, 4000], rel=0.03)


def test_lengths_have_at_least_one_token_and_no_more_than_can_be_counted() -> None:
    rng = np.random.default_rng(3)
    assert LognormalLengths(1, 3).draw(rng, 1000).min() == 1
    assert LognormalLengths(2**30, 3).draw(rng, 1000).max() == 2**31 - 1


def test_uniform_lengths_include_both_ends() -> None:
    tokens = UniformLengths(3, 6).draw(np.random.default_rng(1), 1000)
    assert set(tokens.tolist()) == {3, 4, 5, 6}


def test_empirical_lengths_keep_prompt_and_output_together() -> None:
    trace = workload([0, 1, 2], [10, 20, 30], [1, 2, 3])
    prompts, outputs = EmpiricalLengths(trace).draw(np.random.default_rng(1), 3000)
    assert np.array_equal(prompts, outputs * 10)
    assert np.bincount(outputs)[1:] == pytest.approx([1000] * 3, rel=0.1)


def conversations(spec: Conversations, requests: int = 20_000, rate: float = 2.0) -> Workload:
    return draw_workload(WorkloadSpec(requests, FIXED, PoissonArrivals(), rate, spec, seed=5))


def test_each_turn_extends_the_conversation() -> None:
    # One user, so that successive requests are successive turns.
    made = conversations(Conversations(turns=4, think_s=0, block_tokens=16), 400)
    prompts, blocks = made.prompt_tokens.tolist(), blocks_of(made.prefix)
    begun = 0
    for (before, now), (ids_before, ids) in zip(pairwise(prompts), pairwise(blocks), strict=True):
        assert len(ids) == -(-now // 16)
        shared = before // 16
        if now == 100:
            begun += 1
            assert not set(ids) & set(ids_before)
        else:
            assert now == before + 10 + 100
            assert ids[:shared] == ids_before[:shared]
            assert not set(ids[shared:]) & set(ids_before)
    assert begun == pytest.approx(100, abs=20)


def test_conversations_leave_the_arrivals_as_they_were() -> None:
    made = conversations(Conversations(turns=5, think_s=60))
    assert np.array_equal(made.arrival_s, drawn_without_conversations().arrival_s)
    assert summarize(made).arrival_cv == pytest.approx(1, rel=0.03)


def drawn_without_conversations() -> Workload:
    return draw_workload(WorkloadSpec(20_000, FIXED, PoissonArrivals(), 2.0, seed=5))


def test_all_conversations_share_the_full_blocks_of_the_system_prompt() -> None:
    made = conversations(Conversations(turns=1, system_tokens=1100), 50)
    assert set(made.prompt_tokens.tolist()) == {1200}
    assert [ids[:2] for ids in blocks_of(made.prefix)] == [[0, 1]] * 50
    assert cacheable_tokens(made).tolist() == [0] + [1024] * 49


def test_conversations_end_before_they_are_too_long() -> None:
    made = conversations(Conversations(turns=1000, think_s=10, max_tokens=2000))
    assert (made.prompt_tokens + made.output_tokens).max() <= 2000
    assert made.prompt_tokens.max() > 1800


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GammaArrivals(0), "cv is 0; it must be above 0"),
        (lambda: GammaArrivals(float("nan")), "cv is nan"),
        (lambda: OnOffArrivals(0, 1, 1, 1), "on is 0"),
        (lambda: OnOffArrivals(1, -1, 1, 1), "off is -1; it must be at least 0"),
        (lambda: OnOffArrivals(1, 1, 1, 0), "off_s is 0"),
        (lambda: drawn(OnOffArrivals(1, 0, 1e-9, 1e-9)), "over 10000000 bursts"),
        (lambda: FixedLengths(0), "tokens is 0; it must lie in"),
        (lambda: UniformLengths(5, 4), "low is 5; it must be at most high, 4"),
        (lambda: LognormalLengths(0.5, 1), "mean is 0.5"),
        (lambda: LognormalLengths(5, 0), "sigma is 0"),
        (lambda: LognormalLengths.from_percentiles(9, 9), "p50 is 9 and p99 is 9"),
        (lambda: Conversations(turns=0.5), "turns is 0.5; it must lie in"),
        (lambda: Conversations(block_tokens=0), "block is 0"),
        (lambda: WorkloadSpec(0, FIXED), "requests is 0"),
        (lambda: WorkloadSpec(1, FIXED, rate=0), "rate is 0"),
        (lambda: WorkloadSpec(1, FIXED, seed=-1), "seed is -1"),
    ],
)
def test_values_out_of_range_are_named(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
