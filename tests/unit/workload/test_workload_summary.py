import numpy as np
import pytest
from hypothesis import given
from workloads import blocks_of, workload, workloads

from pdserve.errors import ConfigError
from pdserve.workload.shared_prefix import cacheable_tokens
from pdserve.workload.summary import index_of_dispersion, summarize
from pdserve.workload.workload import Workload


def test_the_figures_of_a_small_workload() -> None:
    summary = summarize(workload([0, 1, 2, 5], [100, 200, 300, 400], [1, 2, 3, 10]), 1.0)
    assert (summary.name, summary.requests, summary.duration_s) == ("made", 4, 5.0)
    assert summary.rate == pytest.approx(0.6)
    assert summary.arrival_cv == pytest.approx(np.std([1, 1, 3]) / np.mean([1, 1, 3]))
    # Five whole windows with 1, 1, 1, 0 and 0 arrivals; the last request is at their end.
    assert summary.dispersion == pytest.approx(np.var([1, 1, 1, 0, 0]) / 0.6)
    assert (summary.prompt_tokens.mean, summary.prompt_tokens.p50) == (250, 250)
    assert (summary.output_tokens.max, summary.output_tokens.mean) == (10, 4)
    assert summary.prompt_tokens_per_s == pytest.approx(150)
    assert summary.output_tokens_per_s == pytest.approx(2.4)
    assert summary.shared_prefix is None


@pytest.mark.parametrize("arrivals", [[0], [0, 0, 0]])
def test_a_burst_has_no_rate(arrivals: list[float]) -> None:
    summary = summarize(workload(arrivals))
    assert (summary.duration_s, summary.rate, summary.arrival_cv) == (0, None, None)
    assert (summary.dispersion, summary.prompt_tokens_per_s) == (None, None)


def test_equal_intervals_have_no_dispersion_and_pairs_double_that_of_their_times() -> None:
    assert index_of_dispersion(workload(np.arange(1001) + 0.0), 10.0) == pytest.approx(0)
    rng = np.random.default_rng(1)
    poisson = np.cumsum(rng.exponential(1.0, 50_000))
    assert index_of_dispersion(workload(poisson), 10.0) == pytest.approx(1, rel=0.05)
    assert index_of_dispersion(workload(np.repeat(poisson, 2)), 10.0) == pytest.approx(2, rel=0.05)


def test_stretching_leaves_burstiness_as_it_is() -> None:
    made = workload(np.cumsum(np.random.default_rng(1).gamma(0.2, 5.0, 1000)))
    slow, fast = summarize(made.at_rate(0.01)), summarize(made.at_rate(100))
    assert slow.arrival_cv == pytest.approx(fast.arrival_cv)
    assert slow.dispersion == pytest.approx(fast.dispersion, rel=0.05)


@pytest.mark.parametrize("window", [0.0, -1.0, float("nan")])
def test_a_window_has_a_width(window: float) -> None:
    with pytest.raises(ConfigError, match="window is"):
        summarize(workload([0, 1]), window)


def test_shared_prefix_is_what_earlier_prompts_began_with() -> None:
    made = workload(
        [0, 0, 1, 2],
        [1000, 700, 1536, 512],
        blocks=[[0, 1], [0, 2], [0, 3, 1], []],
    )
    # The third prompt's last block was seen, but behind one that was not.
    assert cacheable_tokens(made).tolist() == [0, 512, 512, 0]
    assert summarize(made).shared_prefix == pytest.approx(1024 / 3748)
    same_prompt = workload([0, 1], [700, 700], blocks=[[0, 1], [0, 1]])
    assert cacheable_tokens(same_prompt).tolist() == [0, 700]


@given(workloads(prefixes=True))
def test_cacheable_tokens_are_those_of_a_cache_that_forgets_nothing(made: Workload) -> None:
    cache: set[int] = set()
    expected = []
    for ids, prompt in zip(blocks_of(made.prefix), made.prompt_tokens.tolist(), strict=True):
        hits = next((at for at, each in enumerate(ids) if each not in cache), len(ids))
        expected.append(min(hits * 512, prompt))
        cache |= set(ids)
    assert cacheable_tokens(made).tolist() == expected
