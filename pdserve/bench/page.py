"""What a bench found as one page with plots."""

import math
from dataclasses import dataclass
from pathlib import Path

from pdserve.bench import figures
from pdserve.bench.results import Point, Results
from pdserve.bench.summary import Distribution
from pdserve.bench.verdict import headline
from pdserve.html.page import render_page, write_page
from pdserve.planner.report.formats import UNKNOWN, duration, number, percent


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number."""

    label: str
    value: str
    unit: str
    note: str


def write_bench_page(results: Results, path: Path) -> None:
    """Writes the page; `ConfigError` where the file cannot be written."""
    write_page(render_bench_page(results), path)


def render_bench_page(results: Results) -> str:
    """The page: style, script, Plotly and all data are in it."""
    drawn = {
        "attainment": figures.attainment(results),
        "goodput": figures.goodput(results),
        "ttft": figures.percentiles(results, "ttft"),
        "tpot": figures.percentiles(results, "tpot"),
        "ttfts": figures.distribution(results, "ttft"),
        "itls": figures.distribution(results, "itl"),
    }
    values = {
        "headline": headline(results),
        "target": " and ".join(each.target.name for each in results.targets),
        "model": results.targets[0].facts.model,
        "tiles": _tiles(results),
        "columns": _COLUMNS,
        "rows": [_row(results, point) for point in results.points],
        "warnings": [
            f"{number(point.summary.rate)} requests/s, {point.summary.target}: {warning}"
            for point in results.points
            for warning in point.summary.generator.warnings
        ],
        "notes": [
            f"{each.target.name}: {note}" for each in results.targets for note in each.facts.notes
        ],
    }
    return render_page("pdserve.bench", "bench.html.j2", drawn, values)


_COLUMNS = (
    *("Requests/s", "Sent", "Rejected", "Timeouts", "Failed", "Attainment", "95 %", "Goodput"),
    *(f"{name} {part}" for name in ("TTFT", "TPOT", "ITL") for part in ("p50", "p90", "p99")),
    *("Output tokens/s", "Lag p99"),
)


def _tiles(results: Results) -> list[Tile]:
    if not results.points:
        return []
    at_knee = [point for point in results.points if point.summary.rate == results.knee]
    best = max(at_knee or results.points, key=_goodput)
    summary, slo = best.summary, results.slo
    share = summary.attainment
    ttft, ttft_unit = duration(summary.ttft.p50).split(" ") if summary.ttft.count else (UNKNOWN, "")
    tpot, tpot_unit = duration(summary.tpot.p50).split(" ") if summary.tpot.count else (UNKNOWN, "")
    goodput = _goodput(best) if results.knee is None else results.knee
    note = (
        "highest of all rates" if results.knee is None else f"{percent(slo.attainment)} meet both"
    )
    return [
        Tile("Goodput", number(goodput), "req/s", note),
        Tile(
            "SLO attainment",
            percent(share.value),
            "",
            f"{percent(share.low)} – {percent(share.high)} at {number(summary.rate)} req/s",
        ),
        Tile("TTFT p50", ttft, ttft_unit, f"SLO {duration(slo.ttft_s)}"),
        Tile("TPOT p50", tpot, tpot_unit, f"SLO {duration(slo.tpot_s)}"),
        Tile("Output", number(summary.tokens_per_s), "tokens/s", "until the last answer"),
    ]


def _goodput(point: Point) -> float:
    """0 for a burst, which has none."""
    return point.summary.goodput if math.isfinite(point.summary.goodput) else 0.0


def _row(results: Results, point: Point) -> list[str]:
    summary = point.summary
    names = [each.target.name for each in results.targets]
    letter = f"{'AB'[names.index(summary.target)]} · " if len(names) > 1 else ""
    counts = (summary.outcomes.get(each, 0) for each in ("rejected", "timeout", "failed"))
    return [
        f"{letter}{number(summary.rate)}",
        f"{summary.attainment.trials:,}",
        *(f"{count:,}" for count in counts),
        percent(summary.attainment.value),
        f"{percent(summary.attainment.low)} – {percent(summary.attainment.high)}",
        number(summary.goodput),
        *_cells(summary.ttft),
        *_cells(summary.tpot),
        *_cells(summary.itl),
        number(summary.tokens_per_s),
        duration(summary.generator.lag.p99),
    ]


def _cells(seen: Distribution) -> list[str]:
    return [duration(each) for each in (seen.p50, seen.p90, seen.p99)]
