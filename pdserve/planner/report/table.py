"""The report for a terminal of 80 columns or more."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pdserve.planner.analysis import Analysis
from pdserve.planner.report.facts import is_colocated, million_tokens_price, percentiles
from pdserve.planner.report.formats import UNKNOWN, duration, number, percent
from pdserve.planner.report.names import LAYOUTS, ROLE_NAMES
from pdserve.planner.report.verdict import headline
from pdserve.planner.report.words import explain
from pdserve.planner.simulator.result import PERCENTILES, Floats

_STYLES = {"prefill": "yellow", "decode": "bright_blue", "both": "green"}


def plan_view(analysis: Analysis) -> RenderableType:
    """Plan, prediction, layouts, margins and the explanation, one below the other."""
    style = "bold green" if is_colocated(analysis.best) else "bold magenta"
    return Group(
        Text(headline(analysis), style),
        Text(),
        _plan(analysis),
        _prediction(analysis),
        _layouts(analysis),
        _slos(analysis),
        _explanation(analysis),
    )


def _table(title: str, *columns: str) -> Table:
    """A table whose columns after the first are numbers; a name that ends in `<` is text."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.pad_edge = False
    for index, column in enumerate(columns):
        text = index == 0 or column.endswith("<")
        table.add_column(
            column.removesuffix("<"), justify="left" if text else "right", overflow="fold"
        )
    return table


def _plan(analysis: Analysis) -> Table:
    table = _table("Plan", "role", "count", "GPU<", "TP", "PP", "GPUs", "tokens/step", "seqs")
    shapes = analysis.best.placement.shapes()
    order = list(_STYLES)
    for shape, count in sorted(
        shapes.items(), key=lambda item: (order.index(item[0].role), -item[1])
    ):
        table.add_row(
            Text(ROLE_NAMES[shape.role], _STYLES[shape.role]),
            str(count),
            Text(shape.gpu),
            str(shape.tp),
            str(shape.pp),
            str(shape.gpus * count),
            number(shape.max_batch_tokens) if shape.max_batch_tokens else "unlimited",
            number(shape.max_batch_seqs),
        )
    return table


def _prediction(analysis: Analysis) -> Table:
    best, evaluation, slo = analysis.best, analysis.evaluation, analysis.problem.slo
    low, high = analysis.goodput_range
    table = Table(title="Prediction", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.show_header = table.pad_edge = False
    table.add_column()
    table.add_column()
    goodput = f"{number(best.goodput)} requests/s, {number(best.per_gpu)} per GPU"
    table.add_row("goodput", f"{goodput} ({number(low)} to {number(high)} over seeds)")
    met = f"{percent(evaluation.attainment)} ± {percent(evaluation.spread)}"
    table.add_row(
        "attainment",
        f"{met} at {number(evaluation.rate)} requests/s (target {percent(slo.attainment)})",
    )
    if best.price:
        price = number(million_tokens_price(analysis.problem, best))
        table.add_row("cost", f"{number(best.price)} an hour, {price} per million output tokens")
    return table


def _layouts(analysis: Analysis) -> Table:
    priced = any(found.price for found in analysis.search.found)
    extra = ("cost/h", "cost/Mtok") if priced else ()
    table = _table("Layouts", "layout", "requests/s", "GPUs", "per GPU", *extra)
    for index, found in enumerate(analysis.search.found):
        costs = (number(found.price), number(million_tokens_price(analysis.problem, found)))
        table.add_row(
            LAYOUTS[found.layout],
            number(found.goodput),
            str(found.placement.gpus),
            number(found.per_gpu),
            *(costs if priced else ()),
            style="bold" if index == 0 else None,
        )
    for layout in analysis.search.absent:
        table.add_row(LAYOUTS[layout], *[UNKNOWN] * (3 + len(extra)), style="dim")
    return table


def _slos(analysis: Analysis) -> Table:
    """Percentiles beside the bounds, and how far those can tighten."""
    evaluation, slo, margins = analysis.evaluation, analysis.problem.slo, analysis.margins
    percentile_names = [f"p{p}" for p in PERCENTILES]
    table = _table(
        f"Latency at {number(evaluation.rate)} requests/s",
        "",
        *percentile_names,
        "SLO",
        "can tighten to",
    )
    rows: tuple[tuple[str, Floats, float, float], ...] = (
        ("TTFT", evaluation.ttft_s, slo.ttft_s, margins.ttft),
        ("TPOT", evaluation.tpot_s, slo.tpot_s, margins.tpot),
    )
    for name, seconds, bound, factor in rows:
        cells = [
            Text(duration(value), "red" if value > bound else "")
            for value in percentiles(seconds).values()
        ]
        tightest = f"{duration(bound * factor)} (×{number(factor)})"
        known = tightest if duration(bound * factor) != UNKNOWN else UNKNOWN
        table.add_row(name, *cells, duration(bound), known)
    return table


def _explanation(analysis: Analysis) -> Group:
    """The sentences, each topic below its heading."""
    return Group(
        *(
            Group(Text(each.topic, "bold"), Padding(Text(each.text), (0, 0, 1, 2)))
            for each in explain(analysis)
        )
    )
