import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from workloads import blocks_of, same_partition, workload, workloads

from pdserve.errors import ConfigError
from pdserve.workload.arrivals import PoissonArrivals
from pdserve.workload.operations import (
    clamp_context,
    head,
    repeat,
    resample,
    split,
    thin,
    window,
    without_prefix,
)
from pdserve.workload.workload import Workload

FOUR = workload([0, 10, 20, 40], [1, 2, 3, 4], [5, 6, 7, 8])


def test_head_takes_the_first_requests_or_all() -> None:
    assert head(FOUR, 2).prompt_tokens.tolist() == [1, 2]
    assert len(head(FOUR, 9)) == 4


def test_a_window_holds_its_beginning_and_not_its_end_and_counts_from_its_first_request() -> None:
    taken = window(FOUR, 10, 40)
    assert taken.prompt_tokens.tolist() == [2, 3]
    assert taken.arrival_s.tolist() == [0, 10]
    assert len(window(FOUR, 0, float("inf"))) == 4


@given(workloads(prefixes=True), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_is_a_partition(made: Workload, share: float, seed: int) -> None:
    count = round(share * len(made))
    assume(0 < count < len(made))
    parts = split(made, share, seed)
    assert len(parts[0]) == count
    rows = [row for part in parts for row in requests(part)]
    assert sorted(rows) == sorted(requests(made))
    again = split(made, share, seed)
    assert [requests(part) for part in parts] == [requests(part) for part in again]


def requests(made: Workload) -> list[tuple[int, int, list[int]]]:
    return list(
        zip(
            made.prompt_tokens.tolist(),
            made.output_tokens.tolist(),
            blocks_of(made.prefix),
            strict=True,
        )
    )


def test_a_split_keeps_the_times_between_requests() -> None:
    made = workload(range(1000), range(1, 1001))
    for part in split(made, 0.3, seed=1):
        assert part.arrival_s[0] == 0
        assert np.array_equal(np.diff(part.arrival_s), np.diff(part.prompt_tokens))


def test_thinning_lowers_the_rate() -> None:
    made = workload(range(10_000))
    assert thin(made, 0.25).rate == pytest.approx(0.25, rel=0.01)
    assert thin(made, 1) is made


def test_rounds_follow_each_other_at_the_rate_of_the_trace_and_share_nothing() -> None:
    made = workload([0, 1, 4], [600, 600, 600], [1, 2, 3], [[0, 1], [0, 2], []])
    long = repeat(made, 8)
    assert long.arrival_s.tolist() == [0, 1, 4, 6, 7, 10, 12, 13]
    assert long.output_tokens.tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert blocks_of(long.prefix) == [[0, 1], [0, 2], [], [3, 4], [3, 5], [], [6, 7], [6, 8]]
    assert len(repeat(made, 2)) == 2


@given(workloads(), st.integers(1, 100))
def test_whole_rounds_keep_the_rate(made: Workload, rounds: int) -> None:
    assume(made.duration_s > 0)
    assert repeat(made, rounds * len(made)).rate == pytest.approx(made.rate)


def test_a_burst_is_repeated_as_one() -> None:
    assert repeat(workload([0]), 3).arrival_s.tolist() == [0, 0, 0]


def test_resampled_requests_are_those_of_the_trace_with_new_arrivals() -> None:
    made = workload([0, 1, 2, 5], [10, 20, 30, 40], [1, 2, 3, 4], [[0], [0], [1], [2]])
    long = resample(made, 20_000, PoissonArrivals(), seed=1)
    assert np.array_equal(long.prompt_tokens, long.output_tokens * 10)
    assert long.rate == pytest.approx(made.rate, rel=0.05)
    assert resample(made, 20_000, PoissonArrivals(), 5.0).rate == pytest.approx(5, rel=0.05)
    assert long.prefix is None
    assert resample(workload([0, 0]), 3, PoissonArrivals()).duration_s > 0


@given(workloads(prefixes=True), st.integers(2, 6000))
def test_clamped_requests_fit_and_others_stay(made: Workload, most: int) -> None:
    cut = clamp_context(made, most)
    total = cut.prompt_tokens + cut.output_tokens
    assert total.max() <= most
    assert cut.prompt_tokens.min() >= 1
    assert cut.output_tokens.min() >= 1
    fits = made.prompt_tokens + made.output_tokens <= most
    assert np.array_equal(cut.output_tokens[fits], made.output_tokens[fits])
    assert np.array_equal(cut.prompt_tokens, np.minimum(made.prompt_tokens, most - 1))
    kept = [
        ids[: -(-prompt // 512)]
        for ids, prompt in zip(blocks_of(made.prefix), cut.prompt_tokens.tolist(), strict=True)
    ]
    assert same_partition(blocks_of(cut.prefix), kept)


def test_prefixes_can_be_dropped() -> None:
    assert without_prefix(workload([0], blocks=[[0]])).prefix is None


@pytest.mark.parametrize(
    ("operate", "message"),
    [
        (lambda: head(FOUR, 0), "limit is 0; it must be at least 1"),
        (lambda: window(FOUR, 5, 5), "the window from 5 s to 5 s is empty"),
        (
            lambda: window(FOUR, 41, 50),
            "no request arrives from 41 s to 50 s; the last one arrives",
        ),
        (lambda: split(FOUR, 0), "share is 0; it must lie between 0 and 1"),
        (lambda: thin(FOUR, 1.5), "share is 1.5"),
        (lambda: split(FOUR, 0.01), "of 4 requests that leaves one part none"),
        (lambda: split(FOUR, 0.5, -1), "seed is -1"),
        (lambda: repeat(FOUR, 0), "requests is 0"),
        (lambda: resample(FOUR, 0, PoissonArrivals()), "requests is 0"),
        (lambda: clamp_context(FOUR, 1), "max_context is 1; it must be at least 2"),
    ],
)
def test_what_leaves_no_workload_is_refused(operate, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        operate()
