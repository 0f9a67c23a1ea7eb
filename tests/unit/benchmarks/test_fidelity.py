"""The figures of the comparison between simulator and services."""

import pytest

from benchmarks.fidelity import (
    LONGEST_OUTPUT,
    LONGEST_PROMPT,
    REQUESTS,
    SLO,
    Figures,
    Trial,
    cells,
    figures,
    make_workload,
)


def test_the_trace_is_the_same_for_a_seed_and_within_its_limits():
    workload = make_workload(seed=3)
    assert len(workload) == REQUESTS
    assert workload.prompt_tokens.max() <= LONGEST_PROMPT
    assert workload.output_tokens.max() <= LONGEST_OUTPUT
    assert workload.output_tokens.min() >= 2, "a request with one token has no TPOT"
    assert (workload.prompt_tokens == make_workload(seed=3).prompt_tokens).all()


def test_figures_are_percentiles_in_ms_and_the_share_within_both_bounds():
    late, slow = SLO.ttft_s + 1, SLO.tpot_s + 1
    seen = figures([0.1, 0.2, 0.3, late], [0.05, slow, 0.07, 0.06])
    assert seen.ttft_p50 == pytest.approx(250)
    assert seen.tpot_p50 == pytest.approx(65)
    assert seen.attainment == 50


def test_cells_show_medians_and_the_median_error():
    measured = Figures(100, 200, 10, 20, 90)
    trials = [
        Trial(Figures(110, 200, 10, 10, 95), measured, 0.0),
        Trial(Figures(120, 300, 10, 10, 100), measured, 0.0),
        Trial(Figures(90, 100, 10, 10, 80), measured, 0.0),
    ]
    assert cells(trials) == [
        "110/100 +10%",
        "200/200 +0%",
        "10/10 +0%",
        "10/20 -50%",
        "95/90 +5",
    ]
