"""A bench's results as tables and sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pdserve.bench.comparison import Measure
from pdserve.bench.load import rate_text
from pdserve.bench.record import Outcome
from pdserve.bench.results import Point, RateComparison, Results
from pdserve.bench.summary import Distribution, Share, Summary
from pdserve.bench.verdict import change, sentences
from pdserve.planner.report.formats import duration, number, percent, plural
from pdserve.planner.slo import Slo

_LETTERS = "AB"


def bench_view(results: Results) -> Group:
    """Details of each point, then all points in one table, then what follows from them."""
    parts: list[RenderableType] = [_details(point, results.slo) for point in results.points]
    parts += [_overview(results)]
    parts += [_comparison(each) for each in results.comparisons if each.measures]
    parts += [Text(line) for line in _sentences(results)]
    return Group(*parts)


def _details(point: Point, slo: Slo) -> Table:
    summary = point.summary
    title = f"{rate_text(summary.rate)} · {summary.target}"
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    for name in ("milliseconds", "mean", "p50", "p90", "p95", "p99", "max", "SLO", "met"):
        table.add_column(name, justify="left" if name == "milliseconds" else "right")
    rows: Sequence[tuple[str, Distribution, float, Share | None]] = (
        ("TTFT", summary.ttft, slo.ttft_s, summary.ttft_attainment),
        ("TPOT", summary.tpot, slo.tpot_s, summary.tpot_attainment),
        ("ITL", summary.itl, math.inf, None),
        ("end to end", summary.e2e, math.inf, None),
        ("send lag", summary.generator.lag, math.inf, None),
    )
    for name, seen, bound, share in rows:
        figures = (seen.mean, seen.p50, seen.p90, seen.p95, seen.p99, seen.max)
        asked = share is not None and math.isfinite(bound)
        table.add_row(
            name,
            *(_ms(value) for value in figures),
            _ms(bound) if asked else "",
            percent(share.value) if asked and share else "",
        )
    table.caption = Text("\n".join(_facts(summary)))
    return table


def _facts(summary: Summary) -> Iterator[str]:
    counts = [
        f"{summary.outcomes.get('ok', 0):,} of {plural(summary.requests, 'request')} answered"
    ]
    counts += [
        f"{count:,} {words}"
        for outcome, words in _OUTCOMES.items()
        if (count := summary.outcomes.get(outcome, 0))
    ]
    yield ", ".join(counts)
    for reason, count in summary.reasons:
        if reason:
            yield f"  {count:,} × {reason}"
    if summary.outcomes.get("ok"):
        cached = f" ({percent(summary.cached_share)} cached)" if summary.cached_share > 0 else ""
        yield (
            f"{number(summary.requests_per_s)} requests/s, {number(summary.tokens_per_s)} output "
            f"tokens/s; on average {number(summary.prompt_tokens)} prompt tokens{cached} and "
            f"{number(summary.output_tokens)} output tokens"
        )
    if summary.short_outputs:
        yield f"{plural(summary.short_outputs, 'answer')} ended before the length asked for"
    if summary.answers_missed:
        yield (
            f"{plural(summary.answers_missed, 'turn')} went out without the answer before it, "
            "which was not complete when the turn was due"
        )
    for warning in summary.generator.warnings:
        yield f"warning: {warning}"


_OUTCOMES: Mapping[Outcome, str] = {
    "rejected": "rejected",
    "timeout": "timed out",
    "failed": "failed",
    "limited": "not sent",
    "interrupted": "interrupted",
}


def _overview(results: Results) -> Table:
    table = Table(title=_asked(results.slo), title_justify="left")
    several = len(results.targets) > 1
    columns = ["target"] if several else []
    columns += ["requests/s", "sent", "rejected", "timeout", "failed", "attainment", "95 %"]
    columns += ["goodput", "TTFT p50", "p99", "TPOT p50", "p99", "tokens/s"]
    for name in columns:
        table.add_column(name, justify="right")
    names = [each.target.name for each in results.targets]
    for point in results.points:
        summary = point.summary
        counts = (summary.outcomes.get(each, 0) for each in ("rejected", "timeout", "failed"))
        row = [_LETTERS[names.index(summary.target)]] if several else []
        row += [
            number(summary.rate),
            f"{summary.attainment.trials:,}",
            *(f"{count:,}" for count in counts),
            percent(summary.attainment.value),
            f"{percent(summary.attainment.low)}–{percent(summary.attainment.high)}",
            number(summary.goodput),
            *(_ms(each) for each in (summary.ttft.p50, summary.ttft.p99)),
            *(_ms(each) for each in (summary.tpot.p50, summary.tpot.p99)),
            number(summary.tokens_per_s),
        ]
        table.add_row(*row)
    return table


def _comparison(comparison: RateComparison) -> Table:
    table = Table(title=f"{rate_text(comparison.rate)}, medians of rounds")
    table.title_justify = "left"
    for name in ("", "A", "B", "B against A", "95 %", "better"):
        table.add_column(name, justify="right" if name else "left")
    for each in comparison.measures:
        low, high = change(each.measure, each.low), change(each.measure, each.high)
        table.add_row(
            each.measure.name,
            _value(each.measure, each.a),
            _value(each.measure, each.b),
            change(each.measure, each.middle),
            f"{low} to {high}",
            each.better or "no difference beyond noise",
        )
    return table


def _sentences(results: Results) -> Iterator[str]:
    if len(results.targets) > 1:
        for letter, each in zip(_LETTERS, results.targets, strict=True):
            yield f"{letter} is {each.target.name} ({each.facts.model})"
    for each in results.targets:
        for note in each.facts.notes:
            yield f"note: {each.target.name}: {note}"
    yield from sentences(results)


def _value(measure: Measure, value: float) -> str:
    if measure.seconds:
        return duration(value)
    return number(value) if measure.ratio else percent(value)


def _asked(slo: Slo) -> str:
    bounds = [
        f"{name} ≤ {duration(bound)}"
        for name, bound in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s))
        if math.isfinite(bound)
    ]
    return f"SLO: {' and '.join(bounds)}" if bounds else "no SLO: every complete answer counts"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}" if math.isfinite(seconds) else "–"
