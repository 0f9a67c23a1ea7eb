"""What the explanation of a plan says."""

import math
from dataclasses import replace

import pytest
import report_analyses

from pdserve.planner.analysis import Analysis
from pdserve.planner.report.facts import capacities, ideal_per_gpu, million_tokens_price
from pdserve.planner.report.formats import (
    UNKNOWN,
    bandwidth,
    duration,
    listed,
    number,
    percent,
    plural,
    size,
)
from pdserve.planner.report.verdict import headline
from pdserve.planner.report.words import explain


def text_of(analysis: Analysis, topic: str) -> str:
    """The paragraph on a topic, empty where there is none."""
    return next((each.text for each in explain(analysis) if each.topic == topic), "")


def test_a_disaggregated_plan_is_recommended_with_its_instances_and_its_gain() -> None:
    analysis = report_analyses.disaggregated()
    best, rival = analysis.best, analysis.rival
    assert rival is not None
    text = text_of(analysis, "Recommendation")
    assert text.startswith("Disaggregate: ")
    assert f"{best.placement.count('prefill')} prefill instance" in text
    assert f"{best.placement.count('decode')} decode instance" in text
    assert f"{number(best.goodput)} requests/s on {best.placement.gpus} GPUs" in text
    assert f"{number(best.per_gpu)} per GPU" in text
    assert f"{number(best.goodput / rival.goodput)} times the goodput of the best colocated" in text
    assert headline(analysis).startswith("Disaggregate: ")


def test_disaggregation_is_advised_against_where_it_does_not_pay() -> None:
    analysis = report_analyses.colocated()
    text = text_of(analysis, "Recommendation")
    assert text.startswith("Do not disaggregate: ")
    assert "times the goodput of the best disaggregated layout" in text
    assert headline(analysis).startswith("Do not disaggregate: ")
    assert "little interference to remove" in text_of(analysis, "Why")


def test_a_colocated_plan_has_nothing_to_say_of_transfers() -> None:
    topics = {each.topic for each in explain(report_analyses.colocated())}
    assert not topics & {"KV on the network", "Node affinity", "Why this ratio"}


def test_every_layout_without_a_plan_is_named_with_its_reason() -> None:
    analysis = report_analyses.colocated()
    text = text_of(analysis, "Ruled out")
    assert analysis.search.absent
    for reason in analysis.search.absent.values():
        assert reason in text
    assert not text_of(report_analyses.disaggregated(), "Ruled out")


def test_the_ratio_comes_from_single_instances() -> None:
    analysis = report_analyses.disaggregated()
    text = text_of(analysis, "Why this ratio")
    for phase in capacities(analysis, analysis.best):
        assert math.isfinite(phase.goodput)
        for _, _, goodput in phase.parts:
            assert number(goodput) in text


def test_what_binds_and_what_helps_is_said() -> None:
    for analysis in (report_analyses.disaggregated(), report_analyses.colocated()):
        text = text_of(analysis, "What binds")
        assert percent(analysis.binding.ttft_missed) in text
        assert "What helps: " in text


def test_kv_and_the_busiest_link_are_stated() -> None:
    analysis = report_analyses.disaggregated()
    text = text_of(analysis, "KV on the network")
    mean = float(analysis.problem.workload.prompt_tokens.mean()) * analysis.problem.kv_bytes
    assert size(mean) in text
    assert analysis.links[0].name in text
    assert percent(analysis.links[0].utilisation) in text


def test_for_a_rate_the_layouts_are_compared_by_what_they_cost() -> None:
    analysis = report_analyses.for_rate()
    text = text_of(analysis, "Recommendation")
    assert "4 requests/s and up to" in text
    assert "for the same rate" in text
    assert "an hour" in text


def test_a_runner_up_that_costs_the_same_is_within_the_noise() -> None:
    analysis = report_analyses.for_rate()
    assert analysis.runner_up is not None
    assert analysis.runner_up.price == analysis.best.price
    assert "within the noise" in text_of(analysis, "Confidence")


def test_a_runner_up_with_almost_the_goodput_is_within_the_noise() -> None:
    analysis = report_analyses.disaggregated()
    assert "within the noise" not in text_of(analysis, "Confidence")
    best, runner_up = analysis.search.found[:2]
    close = replace(runner_up, goodput=0.99 * min(analysis.goodput_range))
    near = replace(analysis, search=replace(analysis.search, found=[best, close]))
    assert "within the noise" in text_of(near, "Confidence")


def test_an_slo_that_was_not_given_has_no_margin() -> None:
    text = text_of(report_analyses.colocated(), "Margins")
    assert "TTFT to " in text
    assert "TPOT" not in text


def test_no_sentence_has_a_number_that_is_none() -> None:
    for make in (
        report_analyses.disaggregated,
        report_analyses.colocated,
        report_analyses.for_rate,
    ):
        for each in explain(make()):
            assert UNKNOWN not in each.text
            assert "nan" not in each.text.split()
            assert each.text.endswith(".")


def test_the_ideal_division_costs_both_phases_of_a_request() -> None:
    analysis = report_analyses.disaggregated()
    judged = analysis.search.instances
    p, d = (
        max(each.goodput / each.shape.gpus for each in judged[k]) for k in ("prefill", "decode")
    )
    assert 1 / ideal_per_gpu(analysis) == pytest.approx(1 / p + 1 / d)


def test_the_price_of_tokens_is_that_of_an_hour_over_its_tokens() -> None:
    analysis = report_analyses.for_rate()
    tokens = 4.0 * 3600 * analysis.problem.mean_output
    price = million_tokens_price(analysis.problem, analysis.best)
    assert price == pytest.approx(analysis.best.price / tokens * 1e6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.162, "1.16"),
        (74.25, "74.2"),
        (1155.4, "1,155"),
        (50.0, "50"),
        (0.5, "0.5"),
        (0.0123, "0.0123"),
        (math.nan, UNKNOWN),
        (math.inf, UNKNOWN),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_units_fit_their_values() -> None:
    assert duration(0.0393) == "39.3 ms"
    assert duration(12.34) == "12.3 s"
    assert duration(math.nan) == UNKNOWN
    assert size(378.5e6) == "378 MB"
    assert bandwidth(12.5e9) == "12.5 GB/s"
    assert percent(0.961) == "96.1%"
    assert percent(0.9) == "90%"
    assert percent(0.0001) == "under 0.1%"
    assert plural(1, "GPU") == "1 GPU"
    assert plural(1008, "GPU") == "1,008 GPUs"
    assert listed(["a", "b", "c"]) == "a, b and c"
