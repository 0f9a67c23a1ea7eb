"""What a bench's results say, in sentences."""

import math
from collections.abc import Iterator

from pdserve.bench.comparison import Compared, Measure
from pdserve.bench.load import rate_text
from pdserve.bench.results import RateComparison, Results
from pdserve.bench.summary import Summary
from pdserve.planner.report.formats import number, percent
from pdserve.planner.slo import Slo


def sentences(results: Results) -> Iterator[str]:
    """What follows from all points together; nothing where they only stand side by side."""
    if results.knee is not None:
        yield _knee(results.knee, results.slo)
    for comparison in results.comparisons:
        yield _comparison(comparison)


def headline(results: Results) -> str:
    """What matters most of what was found."""
    found = list(sentences(results))
    if found:
        return " ".join(found)
    if not results.points:
        return "Nothing was measured."
    best = max((point.summary for point in results.points), key=_met_per_s)
    return (
        f"{percent(best.attainment.value)} of the requests met the SLOs at {rate_text(best.rate)}: "
        f"{number(best.goodput)} requests/s of goodput."
    )


def _met_per_s(summary: Summary) -> float:
    return summary.goodput if math.isfinite(summary.goodput) else 0.0


def _knee(knee: float, slo: Slo) -> str:
    share = percent(slo.attainment)
    if not knee:
        return f"Goodput: at no rate of the sweep did {share} of the requests meet the SLOs."
    return (
        f"Goodput: {number(knee)} requests/s is the highest rate that was seen at which {share} of "
        "the requests meet the SLOs."
    )


def _comparison(comparison: RateComparison) -> str:
    """Who is better where, as far as it is no chance."""
    head = f"At {rate_text(comparison.rate)}"
    if not comparison.measures:
        return f"{head} there were not two whole rounds with answers of both to compare."
    found = [
        f"{letter} is better in {', '.join(_named(each) for each in better)}"
        for letter in "AB"
        if (better := [each for each in comparison.measures if each.better == letter])
    ]
    if not found:
        return f"{head} there is no difference beyond noise."
    return f"{head} {'; '.join(found)}. The other differences are within noise."


def _named(each: Compared) -> str:
    return f"{each.measure.name} ({change(each.measure, each.middle)})"


def change(measure: Measure, value: float) -> str:
    """How B differs from A: as a factor, or in points of a share."""
    return f"{value:.3f}×" if measure.ratio else f"{value * 100:+.1f} points"
