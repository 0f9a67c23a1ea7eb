"""The figures of a bench, as Plotly's JSON."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pdserve.bench.record import Record
from pdserve.bench.results import Point, Results
from pdserve.bench.summary import Distribution, Summary
from pdserve.html.figure import (
    Figure,
    horizontal_rule,
    logarithmic_axis,
    note_below,
    note_left,
    plain_layout,
    rounded,
    vertical_rule,
)
from pdserve.planner.report.formats import duration, number, percent

# CSS variables of the page: of the targets, and of the rates of a distribution.
TARGET_COLORS = ("decode", "prefill")
_RATE_COLORS = ("decode", "both", "prefill", "apart", "whole", "paired")
# What arrives in one piece is no time apart, which a logarithmic axis has no place for.
_LEAST_MS = 0.05
_DASHES = ("solid", "dot")
_QUANTILES = np.concatenate([np.linspace(0, 0.98, 197), np.linspace(0.982, 1, 19)])


def attainment(results: Results) -> Figure:
    """SLO attainment against rate with its intervals, and the share of those not rejected."""
    data: list[Figure] = []
    for target, points in _by_target(results):
        summaries = [point.summary for point in points]
        line = _line(_label(results, target, "of all sent"), summaries, target)
        shares = [summary.attainment for summary in summaries]
        line["y"] = rounded(share.value for share in shares)
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": rounded(share.high - share.value for share in shares),
            "arrayminus": rounded(share.value - share.low for share in shares),
            "thickness": 1.2,
        }
        data.append(line)
        if any(summary.rejected for summary in summaries):
            admitted = _line(_label(results, target, "of those admitted"), summaries, target, "dot")
            data.append(admitted | {"y": rounded(s.admitted.value for s in summaries)})
    layout = plain_layout("requests/s", "requests that meet both SLOs")
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    layout["xaxis"] |= {"rangemode": "tozero"}
    target_share = results.slo.attainment
    layout["shapes"] = [horizontal_rule(target_share)]
    layout["annotations"] = [note_left(target_share, f"target {percent(target_share)}")]
    if results.knee:
        layout["shapes"].append(vertical_rule(results.knee))
        layout["annotations"].append(
            note_below(results.knee, f"goodput {number(results.knee)}", "right")
        )
    return {"data": _numbers(data), "layout": layout}


def goodput(results: Results) -> Figure:
    """Requests per second that met both SLOs, and all that were sent, against rate."""
    data = []
    for target, points in _by_target(results):
        summaries = [point.summary for point in points]
        line = _line(_label(results, target, "goodput"), summaries, target)
        data.append(line | {"y": rounded(summary.goodput for summary in summaries)})
    rates = sorted({point.summary.rate for point in results.points})
    data.append(
        {
            "type": "scatter",
            "name": "sent",
            "mode": "lines",
            "x": rounded(rates),
            "y": rounded(rates),
            "line": {"color": "var(--rule)", "width": 1.2, "dash": "dot"},
        }
    )
    layout = plain_layout("requests/s", "requests/s that meet both SLOs")
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"rangemode": "tozero"}
    return {"data": _numbers(data), "layout": layout}


def percentiles(results: Results, of: str) -> Figure:
    """p50, p90 and p99 of `ttft` or `tpot` against rate, in milliseconds."""
    bound = results.slo.ttft_s if of == "ttft" else results.slo.tpot_s
    data = []
    for target, points in _by_target(results):
        summaries = [point.summary for point in points]
        for name, dash in (("p50", "solid"), ("p90", "dash"), ("p99", "dot")):
            line = _line(_label(results, target, name), summaries, target, dash)
            seen: Iterable[Distribution] = (getattr(summary, of) for summary in summaries)
            data.append(line | {"y": rounded(getattr(each, name) * 1e3 for each in seen)})
    layout = plain_layout("requests/s", f"{of.upper()} (ms)")
    layout["xaxis"] |= {"rangemode": "tozero"}
    layout["yaxis"] |= logarithmic_axis()
    if math.isfinite(bound):
        layout["shapes"] = [horizontal_rule(bound * 1e3)]
        # A logarithmic axis wants the logarithm for a note, though not for a line.
        layout["annotations"] = [note_left(math.log10(bound * 1e3), f"SLO {duration(bound)}")]
    return {"data": _numbers(data), "layout": layout}


def distribution(results: Results, of: str) -> Figure:
    """The share of requests whose `ttft`, or of chunks whose `itl`, is within a time, by rate."""
    times: Callable[[Record], Sequence[float]]
    if of == "ttft":
        times, bound, what = (lambda record: (record.ttft_s,)), results.slo.ttft_s, "requests"
    else:
        times, bound, what = (lambda record: record.gaps_s), math.inf, "gaps between chunks"
    data = []
    for target, points in _by_target(results):
        shown = _spread(points, len(_RATE_COLORS))
        for color, point in zip(_RATE_COLORS, shown, strict=False):
            seconds = [each for record in _answered(point) for each in times(record)]
            if not seconds:
                continue
            values = np.quantile(np.array(seconds), _QUANTILES) * 1e3
            data.append(
                {
                    "type": "scatter",
                    "name": _label(results, target, f"{number(point.summary.rate)} requests/s"),
                    "x": rounded(np.maximum(values, _LEAST_MS)),
                    "y": rounded(_QUANTILES),
                    "line": {"color": f"var(--{color})", "width": 2, "dash": _DASHES[target]},
                    "hovertemplate": "%{y:.1%} within %{x:.4~g} ms",
                }
            )
    layout = plain_layout(f"{of.upper()} (ms)", f"share of {what}")
    layout["xaxis"] |= logarithmic_axis()
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    if math.isfinite(bound):
        layout["shapes"] = [vertical_rule(bound * 1e3)]
        layout["annotations"] = [
            note_below(math.log10(bound * 1e3), f"SLO {duration(bound)}", "left")
        ]
    return {"data": data, "layout": layout}


def _by_target(results: Results) -> list[tuple[int, Sequence[Point]]]:
    """The points of each target that have a rate."""
    return [
        (place, [p for p in results.of(each.target.name) if math.isfinite(p.summary.rate)])
        for place, each in enumerate(results.targets)
    ]


def _label(results: Results, target: int, what: str) -> str:
    return f"{'AB'[target]}, {what}" if len(results.targets) > 1 else what


def _line(name: str, summaries: Sequence[Summary], target: int, dash: str = "solid") -> Figure:
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines+markers",
        "x": rounded(summary.rate for summary in summaries),
        "marker": {"size": 6},
        "line": {"color": f"var(--{TARGET_COLORS[target]})", "width": 2.2, "dash": dash},
    }


def _answered(point: Point) -> list[Record]:
    return [
        record for each in point.slices for record in each.run.records if record.outcome == "ok"
    ]


def _spread(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many of the points, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]


def _numbers(data: list[Figure]) -> list[Figure]:
    """The same with gaps where there is no number."""
    for each in data:
        each["y"] = [value if math.isfinite(value) else None for value in each["y"]]
    return data
