"""The report as one HTML file that needs no network."""

from dataclasses import dataclass
from pathlib import Path

from pdserve.html.figure import Figure
from pdserve.html.page import render_page, write_page
from pdserve.planner.analysis import Analysis
from pdserve.planner.plan import Layout, Role
from pdserve.planner.problem import Problem
from pdserve.planner.report import figures
from pdserve.planner.report.cluster_view import view_nodes
from pdserve.planner.report.facts import (
    advantage,
    best_per_gpu,
    candidates,
    capacities,
    is_colocated,
    million_tokens_price,
    percentiles,
)
from pdserve.planner.report.figures import LAYOUT_COLORS
from pdserve.planner.report.formats import bandwidth, duration, number, percent, plural
from pdserve.planner.report.names import LAYOUTS, ROLE_NAMES, parallelism
from pdserve.planner.report.verdict import headline
from pdserve.planner.report.words import explain
from pdserve.planner.search import Found
from pdserve.planner.simulator.result import PERCENTILES, Floats

_MOST_LINKS = 8
_MOST_SHAPES = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number."""

    label: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A value beside a bar of `share` of the full width; `mark` is a line across it, or below 0."""

    label: str
    value: str
    share: float
    role: str = ""
    mark: float = -1.0


@dataclass(frozen=True, slots=True)
class SloRow:
    """An SLO, the percentiles beside it and how far it can tighten, as texts."""

    name: str
    percentiles: tuple[str, ...]
    bound: str
    tightest: str


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """A layout's figures as texts; `share` is the bar of its goodput per GPU."""

    name: str
    shapes: str
    goodput: str
    gpus: str
    per_gpu: str
    share: float
    relative: str
    costs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """A shape's figures as texts; `share` is the bar of its goodput per GPU."""

    cells: tuple[str, ...]
    per_gpu: str
    share: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class ShapeTable:
    """One phase's shapes, of which the page shows the first ones and hides the rest."""

    title: str
    role: str
    rows: tuple[ShapeRow, ...]
    hidden: tuple[ShapeRow, ...]


def write_html(analysis: Analysis, path: Path) -> None:
    """Writes the page; `ConfigError` where the file cannot be written."""
    write_page(render_html(analysis), path)


def render_html(analysis: Analysis) -> str:
    """The page: style, script, Plotly and all data are in it."""
    problem = analysis.problem
    values = {
        "headline": headline(analysis),
        "colocated": is_colocated(analysis.best),
        "model": problem.model,
        "workload": problem.workload.name,
        "paragraphs": explain(analysis),
        "tiles": _tiles(analysis),
        "balance": _balance(analysis),
        "compared": _compared(analysis),
        "slos": _slos(analysis),
        "seen": [f"p{p}" for p in PERCENTILES],
        "cluster": view_nodes(problem.cluster, analysis.best.placement),
        "roles": [
            (each.role, ROLE_NAMES[each.role]) for each in capacities(analysis, analysis.best)
        ],
        "paired": analysis.best.layout == "paired",
        "links": _links(analysis),
        "links_left": max(0, len(analysis.links) - _MOST_LINKS),
        "rate": number(analysis.evaluation.rate),
        "layouts": [_layout_row(analysis, found) for found in analysis.search.found],
        "absent": [(LAYOUTS[layout], why) for layout, why in analysis.search.absent.items()],
        "priced": any(found.price for found in analysis.search.found),
        "measure": _measure(analysis),
        "shapes": _shape_tables(analysis),
        "inputs": _inputs(analysis),
        "has_flows": bool(analysis.flows.any()),
    }
    return render_page("pdserve.planner.report", "report.html.j2", _figures(analysis), values)


def _figures(analysis: Analysis) -> dict[str, Figure]:
    """Every figure by the id of its place."""
    drawn = {
        "attainment": figures.attainment(analysis),
        "ttft": figures.latency(analysis, "ttft"),
        "tpot": figures.latency(analysis, "tpot"),
        "scale": figures.slo_scale(analysis),
        "queued": figures.timeline(analysis, "queued"),
        "kv": figures.timeline(analysis, "kv_used"),
    }
    if analysis.flows.any():
        drawn["flows"] = figures.flows(analysis)
    return drawn


def _tiles(analysis: Analysis) -> list[Tile]:
    problem, best, evaluation = analysis.problem, analysis.best, analysis.evaluation
    slo = problem.slo
    low, high = analysis.goodput_range
    spread = f"± {percent(evaluation.spread)}, target {percent(slo.attainment)}"
    tiles = [
        Tile("Goodput", number(best.goodput), "req/s", f"{number(low)} – {number(high)} by seed"),
        Tile("Per GPU", number(best.per_gpu), "req/s", plural(best.placement.gpus, "GPU")),
    ]
    if analysis.rival is not None and analysis.rival.goodput:
        kind = "disaggregated" if is_colocated(best) else "colocated"
        gain = advantage(problem, best, analysis.rival)
        what = _measure(analysis)
        note = what if problem.rate is None else f"its {what} for the same rate"
        tiles.append(Tile(f"Against {kind}", f"{number(gain)}×", "", note))
    tiles.append(Tile("SLO attainment", percent(evaluation.attainment), "", spread))
    for name, seconds, bound in (
        ("TTFT", evaluation.ttft_s, slo.ttft_s),
        ("TPOT", evaluation.tpot_s, slo.tpot_s),
    ):
        value, _, unit = duration(percentiles(seconds)[90]).partition(" ")
        tiles.append(Tile(f"{name} p90", value, unit, f"SLO {duration(bound)}"))
    if best.price:
        cost = number(million_tokens_price(problem, best))
        note = f"per million output tokens; {number(best.price)} an hour"
        tiles.append(Tile("Cost", cost, "", note))
    return tiles


def _balance(analysis: Analysis) -> list[Bar]:
    """What each phase could serve by itself, with a mark at the rate."""
    phases = capacities(analysis, analysis.best)
    rate = analysis.evaluation.rate
    most = max(rate, *(phase.goodput for phase in phases)) * 1.04
    return [
        Bar(
            f"{phase.instances} {ROLE_NAMES[phase.role]}",
            f"{number(phase.goodput)} requests/s on {plural(phase.gpus, 'GPU')}",
            phase.goodput / most,
            phase.role,
            rate / most,
        )
        for phase in phases
    ]


def _compared(analysis: Analysis) -> list[Bar]:
    """The layouts by their goodput per GPU."""
    most = max(found.per_gpu for found in analysis.search.found)
    return [
        Bar(
            LAYOUTS[found.layout],
            number(found.per_gpu),
            found.per_gpu / most if most else 0.0,
            LAYOUT_COLORS[found.layout],
        )
        for found in analysis.search.found
    ]


def _slos(analysis: Analysis) -> list[SloRow]:
    evaluation, slo, margins = analysis.evaluation, analysis.problem.slo, analysis.margins
    rows: tuple[tuple[str, Floats, float, float], ...] = (
        ("TTFT", evaluation.ttft_s, slo.ttft_s, margins.ttft),
        ("TPOT", evaluation.tpot_s, slo.tpot_s, margins.tpot),
    )
    return [
        SloRow(
            name,
            tuple(duration(value) for value in percentiles(seconds).values()),
            duration(bound),
            duration(bound * factor),
        )
        for name, seconds, bound, factor in rows
    ]


def _links(analysis: Analysis) -> list[Bar]:
    return [
        Bar(
            link.name,
            f"{bandwidth(link.bytes_per_s)} of {bandwidth(link.capacity)}, "
            f"{percent(link.utilisation)}",
            min(1.0, link.utilisation),
        )
        for link in analysis.links[:_MOST_LINKS]
    ]


def _layout_row(analysis: Analysis, found: Found) -> LayoutRow:
    problem = analysis.problem
    cluster = problem.cluster
    most = max(each.per_gpu for each in analysis.search.found)
    shapes = [
        f"{count} {ROLE_NAMES[shape.role]} ({parallelism(cluster, shape)})"
        for shape, count in sorted(
            found.placement.shapes().items(), key=lambda item: (item[0].role != "prefill", -item[1])
        )
    ]
    return LayoutRow(
        name=LAYOUTS[found.layout],
        shapes=", ".join(shapes),
        goodput=number(found.goodput),
        gpus=f"{found.placement.gpus:,}",
        per_gpu=number(found.per_gpu),
        share=found.per_gpu / most if most else 0.0,
        relative=percent(_relative(problem, analysis.best, found)),
        costs=(number(found.price), number(million_tokens_price(problem, found))),
    )


def _measure(analysis: Analysis) -> str:
    """What layouts are compared by."""
    if analysis.problem.rate is None:
        return "goodput"
    return "cost" if analysis.best.price else "GPUs"


def _relative(problem: Problem, best: Found, found: Found) -> float:
    """A layout's goodput, or its expense for a given rate, as a share of the best plan's."""
    gain = advantage(problem, best, found)
    return 1 / gain if problem.rate is None else gain


def _shape_tables(analysis: Analysis) -> list[ShapeTable]:
    phases: tuple[tuple[str, Role, Layout], ...] = (
        ("Prefill", "prefill", "apart"),
        ("Decode", "decode", "apart"),
        ("Colocated, in chunks", "both", "colocated-chunked"),
        ("Colocated, whole prompts", "both", "colocated-whole"),
    )
    return [
        _shape_table(analysis, title, role, layout)
        for title, role, layout in phases
        if candidates(analysis, role, layout)
    ]


def _shape_table(analysis: Analysis, title: str, role: Role, layout: Layout) -> ShapeTable:
    judged = candidates(analysis, role, layout)
    best = analysis.best
    # Colocated shapes of the two layouts may look the same.
    chosen = set(best.placement.shapes()) if role != "both" or best.layout == layout else set()
    most = best_per_gpu(judged)
    rows = [
        ShapeRow(
            cells=(
                each.shape.gpu,
                str(each.shape.tp),
                str(each.shape.pp),
                number(each.shape.max_batch_tokens) if each.shape.max_batch_tokens else "∞",
                number(each.goodput),
            ),
            per_gpu=number(each.per_gpu),
            share=each.per_gpu / most,
            chosen=each.shape in chosen,
        )
        for each in judged
    ]
    shown = [row for k, row in enumerate(rows) if k < _MOST_SHAPES or row.chosen]
    hidden = [row for k, row in enumerate(rows) if k >= _MOST_SHAPES and not row.chosen]
    return ShapeTable(title, role, tuple(shown), tuple(hidden))


def _inputs(analysis: Analysis) -> list[tuple[str, str]]:
    """What was asked, and of what figures the answer was made."""
    problem = analysis.problem
    workload, slo = problem.workload, problem.slo
    kinds = ", ".join(f"{problem.cluster.gpus_of(kind)} × {kind}" for kind in problem.cluster.kinds)
    asked = "highest goodput" if problem.rate is None else f"{number(problem.rate)} requests/s"
    origins = "; ".join(sorted({source.origin for source in problem.sources.values()}))
    lengths = (
        f"{workload.name}: {len(workload):,} requests, prompts of "
        f"{number(float(workload.prompt_tokens.mean()))} and outputs of "
        f"{number(float(workload.output_tokens.mean()))} tokens on average"
    )
    return [
        ("Model", problem.model),
        ("Asked", f"{asked} on at most {plural(problem.gpu_budget, 'GPU')}"),
        (
            "SLOs",
            f"TTFT {duration(slo.ttft_s)}, TPOT {duration(slo.tpot_s)}, met by "
            f"{percent(slo.attainment)} of the requests",
        ),
        ("Workload", lengths),
        ("Cluster", f"{plural(len(problem.cluster.nodes), 'node')}, {kinds}"),
        ("Costs", origins),
        (
            "Simulated",
            f"{len(analysis.evaluation.results[0]):,} requests, "
            f"{plural(len(analysis.evaluation.attainments), 'version')} of the workload",
        ),
    ]
