"""Attainment counts everybody; percentiles those of whom there is something to say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from planner_workloads import steady

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo

LINE = DecodeCost(0.1, 0.0, 0.0)
COST = InstanceCost(1, 1, PrefillCost(1.0, 0.0, 0.0), LINE, LINE, 1, kv_tokens=160)


def result(prompts, outputs, gap_s=60.0, slo=None, **options):
    workload = steady(len(prompts), gap_s, 1, 1)
    workload = replace(workload, prompt_tokens=np.array(prompts), output_tokens=np.array(outputs))
    made = Deployment([SimulatedInstance("both", COST)], separate_links(1, np.inf), 1.0)
    return simulate(made, workload, slo or Slo(), **options)


def test_times_of_a_request_alone():
    """One second of prefill, then three steps of 0.1 s."""
    seen = result([10], [4])
    assert seen.ttft_s.tolist() == pytest.approx([1.0])
    assert seen.tpot_s.tolist() == pytest.approx([0.1])
    assert seen.finished_s.tolist() == pytest.approx([1.3])
    assert seen.queue_s.tolist() == [0.0]
    assert seen.end_s == pytest.approx(1.3)
    assert seen.instances[0].busy == pytest.approx(1.0)
    assert seen.instances[0].kv_peak == pytest.approx(0.1)


def test_a_refused_request_attains_nothing_and_has_no_times():
    seen = result([10, 500, 10], [4, 4, 4])
    assert seen.refused == 1
    assert len(seen) == 3
    assert seen.attainment(Slo(2.0, 1.0)) == pytest.approx(2 / 3)
    assert np.isnan([seen.ttft_s[1], seen.tpot_s[1], seen.finished_s[1]]).all()
    assert seen.prefill_on.tolist() == [0, -1, 0]
    assert seen.percentiles(seen.ttft_s)["p99"] == pytest.approx(1000.0)


def test_both_bounds_count_and_are_inclusive():
    """Dyadic times, so that the bounds are met to the bit."""
    line = DecodeCost(0.125, 0.0, 0.0)
    made = replace(COST, decode=line, decode_large=line)
    deployment = Deployment([SimulatedInstance("both", made)], separate_links(1, np.inf), 1.0)
    seen = simulate(deployment, steady(1, 0.0, 10, 3), Slo())
    assert seen.attained(Slo(1.0, 0.125)).all()
    assert not seen.attained(Slo(0.999, 0.125)).any()
    assert not seen.attained(Slo(1.0, 0.124)).any()


def test_a_request_of_one_token_has_a_tpot_of_nothing():
    assert result([10], [1]).tpot_s.tolist() == [0.0]


def test_percentiles_are_in_milliseconds():
    seen = result([10], [4])
    values = seen.percentiles(np.array([1.0, 2.0, 3.0, np.nan]))
    assert values == pytest.approx({"p50": 2000.0, "p90": 2800.0, "p99": 2980.0})


def test_percentiles_of_nothing_are_nan():
    seen = result([500], [4])
    assert all(math.isnan(value) for value in seen.percentiles(seen.ttft_s).values())
    assert all(math.isnan(value) for value in seen.summary(Slo())["handoff_ms"].values())


def test_the_target_share_is_met_at_the_share_itself():
    """Nine of ten requests are 90 % of them."""
    slo = Slo(1.5, 1.0, attainment=0.9)
    outputs = [4] * 10
    for prompts, meets in (([10] * 9 + [500], True), ([10] * 8 + [500] * 2, False)):
        for stop_early in (False, True):
            assert result(prompts, outputs, slo=slo, stop_early=stop_early).meets(slo) is meets


def test_an_early_stop_says_so():
    slo = Slo(0.5, 1.0, attainment=0.9)
    seen = result([10] * 50, [4] * 50, slo=slo, stop_early=True)
    assert seen.stopped_early
    assert not seen.meets(slo)
    assert np.count_nonzero(np.isfinite(seen.finished_s)) < 50


def test_the_summary_has_the_figures_of_the_command():
    seen = result([10, 500, 10], [4, 4, 4])
    summary = seen.summary(Slo(2.0, 1.0))
    assert (summary["requests"], summary["refused"], summary["preemptions"]) == (3, 1, 0)
    assert summary["attainment"] == pytest.approx(2 / 3)
    assert summary["ttft_ms"]["p50"] == pytest.approx(1000.0)


def test_the_timeline_shows_where_the_load_was():
    """Each request fills the memory; the second waits for the first, the third comes later."""
    seen = result([140, 140, 140], [10, 10, 1], gap_s=2.0)
    use, slices = seen.instances[0], 1 / seen.slice_s
    assert seen.finished_s == pytest.approx([1.9, 3.9, 5.0])
    assert use.running[: int(1.8 * slices)].tolist() == [1] * int(1.8 * slices)
    assert not use.running[int(1.95 * slices) : int(1.98 * slices)].any()
    assert use.kv_used[: int(1.8 * slices)] == pytest.approx(0.9, abs=0.1)
    assert not use.queued.any()
    waiting = result([140, 140], [10, 10], gap_s=0.5).instances[0]
    assert waiting.queued.max() == 1
    assert waiting.running.max() == 1
