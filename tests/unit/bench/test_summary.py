"""Figures of a run against what they must come to by hand."""

import math

import numpy as np
import pytest
from loads import record, run_of

from pdserve.bench.summary import Distribution, summarize
from pdserve.planner.slo import Slo


def test_percentiles_and_mean() -> None:
    values = np.random.default_rng(0).exponential(0.1, 500)
    seen = Distribution.of([*values, math.nan])
    assert seen.count == 500
    assert seen.mean == pytest.approx(values.mean())
    assert (seen.p50, seen.p95) == pytest.approx(tuple(np.percentile(values, (50, 95))))
    assert seen.max == values.max()
    assert Distribution.of(range(1, 102)) == Distribution(101, 51, 51, 91, 96, 100, 101)
    assert math.isnan(Distribution.of([]).p50)


def test_times_of_a_record() -> None:
    one = record(ttft_s=0.2, e2e_s=0.8, output_tokens=4)
    assert one.tpot_s == pytest.approx(0.2)
    assert one.lag_s == pytest.approx(0.001)
    # Several tokens a chunk: the mean counts tokens, the gaps are those between chunks.
    assert record(ttft_s=0.2, e2e_s=0.8, output_tokens=7, gaps_s=(0.6,)).tpot_s == pytest.approx(
        0.1
    )


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({}, True),
        ({"ttft_s": 0.5001, "e2e_s": 0.53}, False),
        ({"e2e_s": 0.5}, False),
        ({"output_tokens": 1, "e2e_s": 0.1, "gaps_s": ()}, True),
        ({"outcome": "failed"}, False),
        ({"outcome": "rejected"}, False),
        ({"outcome": "timeout", "ttft_s": 0.1}, False),
    ],
)
def test_what_meets_both_slos(fields: dict, met: bool) -> None:
    assert record(**fields).met(Slo(ttft_s=0.5, tpot_s=0.1)) is met


def test_attainment_is_of_all_sent_and_of_those_admitted() -> None:
    records = [record(index) for index in range(6)]
    records += [record(6, ttft_s=0.9, e2e_s=1.0), record(7, "rejected"), record(8, "rejected")]
    records += [record(9, "failed"), record(10, "timeout")]
    records += [record(11, "limited"), record(12, "interrupted")]
    summary = summarize(1.0, [run_of(records)], Slo(ttft_s=0.5))
    assert summary.attainment.value == pytest.approx(6 / 11)
    assert summary.admitted.value == pytest.approx(6 / 9)
    assert summary.requests == 13
    assert summary.outcomes == {
        "ok": 7,
        "rejected": 2,
        "failed": 1,
        "timeout": 1,
        "limited": 1,
        "interrupted": 1,
    }
    # Thirteen requests, a second apart, of which eleven were sent and can be judged.
    assert summary.sent_rate == pytest.approx(11 / 13)
    assert summary.goodput == pytest.approx(6 / 13)
    assert summary.ttft.count == 7
    assert summary.generator.limited == 1
    assert any("generator limited: 1 " in each for each in summary.generator.warnings)


def test_throughput_is_until_the_last_answer() -> None:
    summary = summarize(1.0, [run_of([record(index) for index in range(10)])], Slo())
    until = 9.001 + 0.13
    assert summary.requests_per_s == pytest.approx(10 / until)
    assert summary.tokens_per_s == pytest.approx(40 / until)
    assert summary.goodput == pytest.approx(1.0)


def test_runs_of_one_rate_are_pooled() -> None:
    runs = [run_of([record(0), record(1)]), run_of([record(0), record(1, "failed")])]
    summary = summarize(1.0, runs, Slo())
    assert summary.attainment.value == 0.75
    assert summary.sent_rate == pytest.approx(1.0)


def test_servers_count_tokens_and_cached_ones() -> None:
    records = [
        record(0, counted_tokens=40, cached_tokens=30),
        record(1, counted_tokens=60, cached_tokens=0, output_tokens=2),
    ]
    summary = summarize(1.0, [run_of(records)], Slo())
    assert summary.cached_share == pytest.approx(0.3)
    assert summary.prompt_tokens == 50
    assert summary.short_outputs == 1
    assert math.isnan(summarize(1.0, [run_of([record(0)])], Slo()).cached_share)


def test_a_generator_that_is_the_bottleneck_says_so() -> None:
    late = [record(index, sent_s=index + 0.5) for index in range(10)]
    warnings = summarize(1.0, [run_of(late, cpu=0.95)], Slo()).generator.warnings
    assert len(warnings) == 2
    assert "generator late" in warnings[0]
    assert "95% of a core" in warnings[1]
    assert not summarize(1.0, [run_of([record()])], Slo()).generator.warnings


def test_a_run_without_answers_has_no_figures_and_no_error() -> None:
    summary = summarize(1.0, [run_of([record(0, "failed"), record(1, "failed")])], Slo())
    assert summary.attainment.value == 0
    assert math.isnan(summary.ttft.p50)
    assert summary.reasons == [("failed", 2)]
    assert summarize(1.0, [run_of([])], Slo()).attainment.trials == 0
