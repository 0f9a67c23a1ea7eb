"""The report's figures, as Plotly's JSON."""

import numpy as np

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
from pdserve.planner.analysis import Analysis, Curve, names
from pdserve.planner.evaluation import Evaluation
from pdserve.planner.plan import Layout, Placement
from pdserve.planner.problem import Problem
from pdserve.planner.report.facts import ROLES
from pdserve.planner.report.formats import duration, number, percent, plural
from pdserve.planner.report.names import LAYOUTS, ROLE_NAMES

# The CSS variable of each layout's colour.
LAYOUT_COLORS: dict[Layout, str] = {
    "apart": "apart",
    "paired": "paired",
    "colocated-chunked": "both",
    "colocated-whole": "whole",
}
_QUANTILES = np.concatenate([np.linspace(0, 0.98, 197), np.linspace(0.982, 1, 19)])
# Of a distribution is shown what lies between these: as shares of the SLO, where there is one.
_SHOWN = (0.02, 4.0)
_SCALES = np.linspace(0.2, 1.6, 57)


def attainment(analysis: Analysis) -> Figure:
    """SLO attainment against rate: mean and range over the seeds of every compared layout."""
    problem = analysis.problem
    data: list[Figure] = []
    for curve in analysis.curves:
        data += _curve(curve)
    goal = "asked" if problem.rate is not None else "goodput"
    layout = plain_layout("requests/s", "requests that meet both SLOs")
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    layout["xaxis"] |= {"rangemode": "tozero"}
    layout["shapes"] = [
        horizontal_rule(problem.slo.attainment),
        vertical_rule(analysis.evaluation.rate),
    ]
    layout["annotations"] = [
        note_left(problem.slo.attainment, f"target {percent(problem.slo.attainment)}"),
        note_below(analysis.evaluation.rate, f"{goal} {number(analysis.evaluation.rate)}", "right"),
    ]
    return {"data": data, "layout": layout}


def latency(analysis: Analysis, of: str) -> Figure:
    """The distribution of `ttft` or `tpot`: the plan, and the best of the other kind."""
    bound = analysis.problem.slo.ttft_s if of == "ttft" else analysis.problem.slo.tpot_s
    data: list[Figure] = []
    for compared, evaluation, dash in _evaluations(analysis):
        seconds = evaluation.ttft_s if of == "ttft" else evaluation.tpot_s
        values = np.quantile(
            np.sort(np.nan_to_num(seconds, nan=np.inf)), _QUANTILES, method="lower"
        )
        shown = np.isfinite(values) & (values > 0)
        data.append(
            {
                "type": "scatter",
                "name": LAYOUTS[compared],
                "x": rounded(values[shown] * 1e3),
                "y": rounded(_QUANTILES[shown]),
                "line": {"color": f"var(--{LAYOUT_COLORS[compared]})", "width": 2.5, "dash": dash},
                "hovertemplate": "%{y:.1%} within %{x:.4~g} ms",
            }
        )
    target = analysis.problem.slo.attainment
    layout = plain_layout(f"{of.upper()} (ms)", "share of requests")
    layout["xaxis"] |= logarithmic_axis()
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    layout["shapes"] = [horizontal_rule(target)]
    if np.isfinite(bound):
        low, high = (float(np.log10(bound * 1e3 * factor)) for factor in _SHOWN)
        first = min((trace["x"][0] for trace in data if trace["x"]), default=0)
        layout["xaxis"]["range"] = [max(low, np.log10(first) - 0.05) if first else low, high]
        layout["shapes"].append(vertical_rule(bound * 1e3))
        # A logarithmic axis wants the logarithm for a note, though not for a line.
        layout["annotations"] = [
            note_below(float(np.log10(bound * 1e3)), f"SLO {duration(bound)}", "left")
        ]
    return {"data": data, "layout": layout}


def slo_scale(analysis: Analysis) -> Figure:
    """Attainment at one rate if the SLOs were scaled: both, or one while the other stays."""
    problem = analysis.problem
    data = []
    lines = [("both SLOs", "solid", LAYOUT_COLORS[analysis.best.layout], (True, True))]
    if np.isfinite(problem.slo.ttft_s) and np.isfinite(problem.slo.tpot_s):
        lines.append(("TTFT alone", "dot", "prefill", (True, False)))
        lines.append(("TPOT alone", "dash", "decode", (False, True)))
    for name, dash, color, scaled in lines:
        data.append(_scale_line(problem, analysis.evaluation, name, dash, color, scaled))
    if analysis.rival is not None and analysis.rival_evaluation is not None:
        name = f"both SLOs, {LAYOUTS[analysis.rival.layout]}"
        color = LAYOUT_COLORS[analysis.rival.layout]
        both = (True, True)
        data.append(_scale_line(problem, analysis.rival_evaluation, name, "solid", color, both))
    layout = plain_layout("SLO scale (to the right: tighter)", "requests that meet both SLOs")
    layout["xaxis"] |= {"range": [_SCALES[-1], _SCALES[0]], "tickformat": ".1~f", "dtick": 0.2}
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    layout["shapes"] = [horizontal_rule(problem.slo.attainment), vertical_rule(1.0)]
    layout["annotations"] = [note_below(1.0, "as asked", "right")]
    return {"data": data, "layout": layout}


def timeline(analysis: Analysis, of: str) -> Figure:
    """`queued` requests or `kv_used` of the first seed over time: mean and most by role."""
    placement, result = analysis.best.placement, analysis.evaluation.results[0]
    data: list[Figure] = []
    slices = max(1, int(np.ceil(result.end_s / result.slice_s)))
    for role in ROLES:
        uses = [
            use
            for each, use in zip(placement.instances, result.instances, strict=True)
            if each.role == role
        ]
        if not uses:
            continue
        values = np.array([use.queued if of == "queued" else use.kv_used for use in uses])
        values = values[:, :slices]
        seconds = rounded(np.arange(values.shape[1]) * result.slice_s)
        for name, series, width, opacity in (
            ("most", values.max(axis=0), 1.2, 0.55),
            ("mean", values.mean(axis=0), 2.4, 1.0),
        ):
            data.append(
                {
                    "type": "scatter",
                    "name": f"{ROLE_NAMES[role]}, {name}",
                    "x": seconds,
                    "y": rounded(series),
                    "opacity": opacity,
                    "line": {"color": f"var(--{role})", "width": width, "shape": "hv"},
                }
            )
    title = "requests waiting" if of == "queued" else "KV memory in use"
    layout = plain_layout("seconds", title)
    layout["yaxis"] |= {"rangemode": "tozero"}
    if of == "kv_used":
        layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    return {"data": data, "layout": layout}


def flows(analysis: Analysis) -> Figure:
    """KV from each prefill to each decode instance, in GB/s; nothing where none flows."""
    placement = analysis.best.placement
    gigabytes = analysis.flows / 1e9
    figure: Figure = {
        "type": "heatmap",
        "z": [[float(f"{value:.3g}") if value else None for value in row] for row in gigabytes],
        "x": _with_nodes(placement, "decode"),
        "y": _with_nodes(placement, "prefill"),
        "colorscale": [[0, "var(--heat-low)"], [1, "var(--heat-high)"]],
        "zmin": 0,
        "zmax": float(gigabytes.max(initial=0.0)),
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{y} → %{x}<br>%{z:.3~g} GB/s<extra></extra>",
        "colorbar": {"title": {"text": "GB/s"}, "thickness": 10, "outlinewidth": 0},
    }
    rows, columns = analysis.flows.shape
    layout = plain_layout("decode", "prefill")
    layout["height"] = int(np.clip(26 * rows + 110, 240, 620))
    layout["margin"] |= {"l": 62, "t": 12}
    layout["hovermode"] = "closest"
    # Names that would not fit are left to the tooltip.
    layout["xaxis"] |= {"showticklabels": columns <= 16, "ticklabelstep": 1, "showgrid": False}
    layout["yaxis"] |= {"showticklabels": rows <= 22, "autorange": "reversed", "showgrid": False}
    if rows <= 22:
        layout["yaxis"]["title"]["standoff"] = 6
        layout["yaxis"]["automargin"] = True
    return {"data": [figure], "layout": layout}


def _curve(curve: Curve) -> list[Figure]:
    name = LAYOUTS[curve.found.layout]
    color = LAYOUT_COLORS[curve.found.layout]
    rates = rounded(np.array(curve.rates))
    edge = {"type": "scatter", "x": rates, "mode": "lines", "line": {"width": 0}}
    hidden = {"showlegend": False, "hoverinfo": "skip", "legendgroup": name}
    dash = "dash" if curve.found.layout in ("paired", "colocated-whole") else "solid"
    return [
        {**edge, **hidden, "y": rounded(np.array(curve.least))},
        {
            **edge,
            **hidden,
            "y": rounded(np.array(curve.most)),
            "fill": "tonexty",
            "fillcolor": f"var(--{color}-band)",
        },
        {
            "type": "scatter",
            "name": f"{name} ({plural(curve.found.placement.gpus, 'GPU')})",
            "legendgroup": name,
            "x": rates,
            "y": rounded(np.array(curve.attainment)),
            "mode": "lines+markers",
            "marker": {"size": 6},
            "line": {"color": f"var(--{color})", "width": 2.5, "dash": dash},
            "hovertemplate": "%{y:.1%} at %{x:.4~g} requests/s",
        },
    ]


def _evaluations(analysis: Analysis) -> list[tuple[Layout, Evaluation, str]]:
    """What is simulated at the evaluated rate, with the dash of its line."""
    seen = [(analysis.best.layout, analysis.evaluation, "solid")]
    if analysis.rival is not None and analysis.rival_evaluation is not None:
        seen.append((analysis.rival.layout, analysis.rival_evaluation, "dash"))
    return seen


def _scale_line(
    problem: Problem,
    evaluation: Evaluation,
    name: str,
    dash: str,
    color: str,
    scaled: tuple[bool, bool],
) -> Figure:
    slo = problem.slo
    ttft = np.nan_to_num(evaluation.ttft_s / slo.ttft_s, nan=np.inf)
    tpot = np.nan_to_num(evaluation.tpot_s / slo.tpot_s, nan=np.inf)
    shares = [
        float(np.mean((ttft <= (s if scaled[0] else 1)) & (tpot <= (s if scaled[1] else 1))))
        for s in _SCALES
    ]
    return {
        "type": "scatter",
        "name": name,
        "x": rounded(_SCALES),
        "y": rounded(np.array(shares)),
        "line": {"color": f"var(--{color})", "width": 2.5, "dash": dash},
        "hovertemplate": "%{y:.1%} at %{x:.2f} × SLO",
    }


def _with_nodes(placement: Placement, role: str) -> list[str]:
    """Names of instances for an axis; the script of the page shows them as text."""
    return [name.replace("-", " ") for name in names(placement, role)]
