"""The report as JSON, and on a terminal."""

import json
import re

import pytest
import report_analyses
from rich.cells import cell_len
from rich.console import Console

from pdserve.planner.analysis import Analysis
from pdserve.planner.report.document import to_document
from pdserve.planner.report.table import plan_view
from pdserve.planner.report.words import explain

KEYS = [
    "headline",
    "disaggregate",
    "model",
    "workload",
    "slo",
    "asked",
    "plan",
    "prediction",
    "layouts",
    "absent",
    "runner_up_within_noise",
    "margins",
    "binding",
    "kv",
    "curves",
    "single_instances",
    "explanation",
]


@pytest.fixture(params=["disaggregated", "colocated", "for_rate"])
def analysis(request: pytest.FixtureRequest) -> Analysis:
    made: Analysis = getattr(report_analyses, request.param)()
    return made


def test_the_document_is_json_with_the_documented_keys_in_order(analysis: Analysis) -> None:
    document = to_document(analysis)
    assert list(document) == KEYS
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert to_document.__doc__ is not None
    assert all(f"`{key}`" in to_document.__doc__ for key in KEYS)


def test_the_document_has_the_plan(analysis: Analysis) -> None:
    document, best = to_document(analysis), analysis.best
    plan = document["plan"]
    assert plan["goodput"] == best.goodput
    assert document["disaggregate"] == (not best.layout.startswith("colocated"))
    assert sum(shape["count"] for shape in plan["shapes"]) == len(plan["instances"])
    gpus = [gpu for each in plan["instances"] for stage in each["stages"] for gpu in stage["gpus"]]
    assert len(gpus) == plan["gpus"] == best.placement.gpus
    layouts = {each["layout"] for each in document["layouts"]} | set(document["absent"])
    assert layouts == {"apart", "paired", "colocated-chunked", "colocated-whole"}


def test_what_is_unlimited_is_null() -> None:
    document = to_document(report_analyses.colocated())
    assert document["slo"]["tpot_ms"] is None
    assert document["margins"]["tpot"] is None
    assert document["kv"]["local_share"] is None


def test_flows_have_a_row_a_prefill_instance() -> None:
    flows = to_document(report_analyses.disaggregated())["kv"]["flows"]
    assert len(flows["bytes_per_s"]) == len(flows["prefill"])
    assert all(len(row) == len(flows["decode"]) for row in flows["bytes_per_s"])


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_a_terminal(analysis: Analysis, width: int) -> None:
    lines = _rendered(analysis, width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    # Nothing was left out for lack of room.
    assert not any("…" in line for line in lines)


def test_the_table_has_plan_prediction_and_sentences(analysis: Analysis) -> None:
    text = _rendered(analysis, 80)
    for heading in ("Plan", "Prediction", "Layouts", "TTFT", "TPOT", "can tighten to"):
        assert heading in text
    words = re.sub(r"\s+", " ", text)
    for each in explain(analysis):
        assert each.text in words


def _rendered(analysis: Analysis, width: int) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(plan_view(analysis))
    return capture.get()
