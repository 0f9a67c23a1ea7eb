"""The plan file of an analysis: its best plan, and the figures that it is expected to show."""

import numpy as np

from pdserve.planner.analysis import Analysis
from pdserve.planner.plan_file import Percentiles, PlanFile, Prediction, WorkloadFigures
from pdserve.planner.simulator.result import PERCENTILES, Floats
from pdserve.workload.summary import LengthSummary, summarize
from pdserve.workload.workload import Workload


def plan_of(analysis: Analysis) -> PlanFile:
    """The best plan of an analysis; its figures are rounded to six digits."""
    problem, evaluation, best = analysis.problem, analysis.evaluation, analysis.best
    least, most = analysis.goodput_range
    return PlanFile(
        model=problem.model,
        slo=problem.slo,
        rate=problem.rate,
        layout=best.layout,
        instances=tuple(best.placement.instances),
        prediction=Prediction(
            rate=_rounded(evaluation.rate),
            attainment=_rounded(evaluation.attainment),
            goodput=_rounded(best.goodput),
            goodput_range=(_rounded(least), _rounded(most)),
            ttft_ms=_percentiles(evaluation.ttft_s),
            tpot_ms=_percentiles(evaluation.tpot_s),
            seeds=len(evaluation.results),
            price_per_hour=_rounded(best.price),
        ),
        workload=_figures(problem.workload),
    )


def _percentiles(times_s: Floats) -> Percentiles | None:
    known = times_s[np.isfinite(times_s)]
    if not len(known):
        return None
    return Percentiles(*(_rounded(float(each)) for each in np.percentile(known, PERCENTILES) * 1e3))


def _figures(workload: Workload) -> WorkloadFigures:
    summary = summarize(workload)
    return WorkloadFigures(
        name=summary.name,
        requests=summary.requests,
        rate=None if summary.rate is None else _rounded(summary.rate),
        arrival_cv=None if summary.arrival_cv is None else _rounded(summary.arrival_cv),
        prompt_tokens=_rounded_lengths(summary.prompt_tokens),
        output_tokens=_rounded_lengths(summary.output_tokens),
    )


def _rounded_lengths(lengths: LengthSummary) -> LengthSummary:
    mean, p50, p90, p99 = map(_rounded, (lengths.mean, lengths.p50, lengths.p90, lengths.p99))
    return LengthSummary(mean, p50, p90, p99, lengths.max)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
