"""The file of a bench: complete, strict JSON, and a trace of what was sent."""

import json
from pathlib import Path

import pytest
from loads import record, run_of, workload

from pdserve.bench.comparison import compare
from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.json_lines import write_json_lines
from pdserve.bench.page import render_bench_page
from pdserve.bench.results import Point, RateComparison, Results
from pdserve.bench.session import Prepared, Slice
from pdserve.bench.summary import summarize
from pdserve.bench.target import Facts, TokenRange
from pdserve.errors import ConfigError
from pdserve.planner.slo import Slo
from pdserve.workload.read import read_trace_file

SLO = Slo(ttft_s=0.5)


def prepared(name: str) -> Prepared:
    notes = ("</script> & a note",)
    return Prepared(HttpTarget(HttpOptions(name)), Facts("m", TokenRange(1, 9), notes))


def point(rate: float, name: str, *slices: Slice) -> Point:
    return Point(summarize(rate, [each.run for each in slices], SLO), slices)


def two_rates() -> Results:
    blocks = [[0, 1], [0, 2], [0, 1]]
    made = workload([0, 1, 2], [8, 7, 8], [4, 5, 6], blocks, conversation=[0, -1, 0])
    records = [
        record(0, prompt_tokens=8, output_tokens=3, counted_tokens=8, cached_tokens=4),
        record(1, "failed", prompt_tokens=7, asked_tokens=5),
        record(2, "limited", prompt_tokens=8, asked_tokens=6),
    ]
    first = run_of(records, "http://a", workload=made, began=100.0)
    second = run_of(records, "http://a", workload=made, began=110.0)
    points = (
        point(1.0, "http://a", Slice(1.0, 0, first)),
        point(2.0, "http://a", Slice(2.0, 0, second)),
    )
    return Results((prepared("http://a"),), SLO, points, knee=1.0)


def written(results: Results, path: Path) -> list[dict]:
    write_json_lines(results, {"rate": [1.0]}, path)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line, parse_constant=no_constant) for line in lines]


def test_everything_is_there(tmp_path: Path) -> None:
    lines = written(two_rates(), tmp_path / "run.jsonl")
    assert [line["record"] for line in lines] == ["bench", "point", "point"] + ["request"] * 6
    bench, low = lines[:2]
    assert bench["slo"] == {"ttft_ms": 500.0, "tpot_ms": None, "attainment": 0.9}
    assert bench["targets"][0]["name"] == "http://a"
    assert (bench["asked"], bench["knee"]) == ({"rate": [1.0]}, 1.0)
    assert low["attainment"]["value"] == 0.5
    assert low["ttft"]["p50"] == 0.1
    assert low["tpot"]["max"] == 0.015
    assert low["generator"]["limited"] == 1
    request = lines[3]
    assert request["outcome"] == "ok"
    assert request["ttft_s"] == 0.1
    assert request["gaps_s"] == [0.01, 0.01, 0.01]
    assert lines[4]["ttft_s"] is None
    assert (lines[4]["reason"], lines[4]["received_tokens"]) == ("failed", 0)


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz", "run"])
def test_the_file_is_a_trace_of_what_was_sent(tmp_path: Path, name: str) -> None:
    write_json_lines(two_rates(), {}, tmp_path / name)
    file = read_trace_file(tmp_path / name)
    assert (file.format.name, file.failed) == ("bench", 0)
    made = file.workload
    assert made.arrival_s.tolist() == [0, 1, 2, 10, 11, 12]
    assert made.prompt_tokens.tolist() == [8, 7, 8] * 2
    # What came, or what was asked for where nothing or not all of it did.
    assert made.output_tokens.tolist() == [3, 5, 6] * 2
    assert made.prefix is not None
    assert made.prefix.ids.tolist() == [0, 1, 0, 2, 0, 1, 3, 4, 3, 5, 3, 4]
    assert made.conversation is not None
    assert made.conversation.tolist() == [0, -1, 0, 1, -1, 1]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        write_json_lines(two_rates(), {}, tmp_path)


def comparison() -> Results:
    pair = (prepared("http://a"), prepared("http://b"))
    slices = {
        name: [
            Slice(1.0, n, run_of([record(0, ttft_s=ttft + n / 1000, e2e_s=0.6)], name, began=n))
            for n in range(3)
        ]
        for name, ttft in (("http://a", 0.1), ("http://b", 0.3))
    }
    seen = {
        name: [point(1.0, name, each).summary for each in of_name]
        for name, of_name in slices.items()
    }
    measures = tuple(compare(seen["http://a"], seen["http://b"]))
    points = tuple(point(1.0, name, *of_name) for name, of_name in slices.items())
    return Results(pair, SLO, points, comparisons=(RateComparison(1.0, measures),))


def test_comparisons_are_lines_too(tmp_path: Path) -> None:
    lines = [
        line
        for line in written(comparison(), tmp_path / "run.jsonl")
        if line["record"] == "comparison"
    ]
    ttft = next(line for line in lines if line["measure"] == "TTFT p50")
    assert ttft["better"] == "A"
    assert ttft["middle"] == pytest.approx(0.302 / 0.101, abs=0.03)
    assert ttft["rate"] == 1.0


@pytest.mark.parametrize("results", [two_rates(), comparison()], ids=["rates", "comparison"])
def test_the_page_has_every_figure_and_needs_no_network(results: Results) -> None:
    page = render_bench_page(results)
    for name in ("attainment", "goodput", "ttft", "tpot", "ttfts", "itls"):
        assert f'id="plot-{name}"' in page
        assert f'"{name}":' in page
    assert "&lt;/script&gt; &amp; a note" in page
    body, _, _ = page.partition("plotly.js v")
    assert 'src="' not in body
    assert "http://a" in body


def test_a_page_of_nothing() -> None:
    empty = run_of([record(0, "failed")], "http://a")
    points = (point(1.0, "http://a", Slice(1.0, 0, empty)),)
    results = Results((prepared("http://a"),), SLO, points)
    assert "0% of the requests met the SLOs" in render_bench_page(results)
    assert "Nothing was measured" in render_bench_page(Results(results.targets, SLO, ()))
