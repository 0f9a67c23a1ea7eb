"""How far the plan is from failing, how sure its figures are, and what was ruled out."""

import math

from pdserve.planner.analysis import Analysis
from pdserve.planner.report.facts import is_colocated, near_runner_up
from pdserve.planner.report.formats import duration, number, percent, plural
from pdserve.planner.report.names import COLOCATED_RESOURCES, LAYOUTS, RESOURCES


def binding(analysis: Analysis) -> str:
    """What gives way first beyond the goodput, and what would help."""
    seen = analysis.binding
    known = COLOCATED_RESOURCES if is_colocated(analysis.best) else RESOURCES
    resource, remedy = known.get(seen.resource, (seen.resource.capitalize(), ""))
    text = (
        f"{resource} gives way first: a little beyond the goodput {percent(seen.ttft_missed)} of "
        f"the requests miss the TTFT SLO and {percent(seen.tpot_missed)} the TPOT SLO."
    )
    return f"{text} What helps: {remedy}." if remedy else text


def slack(analysis: Analysis) -> str:
    """By how much the SLOs could be tighter."""
    slo, found, rate = analysis.problem.slo, analysis.margins, number(analysis.evaluation.rate)
    if not math.isfinite(found.both):
        return f"At {rate} requests/s the target of {percent(slo.attainment)} is just missed."
    parts = [
        f"{name} to {duration(bound * factor)} ({number(factor)} times the SLO)"
        for name, bound, factor in (
            ("TTFT", slo.ttft_s, found.ttft),
            ("TPOT", slo.tpot_s, found.tpot),
        )
        if math.isfinite(bound) and math.isfinite(factor)
    ]
    if not parts:
        return ""
    text = f"At {rate} requests/s {' or '.join(parts)} could tighten alone"
    if len(parts) > 1:
        text += f", or both to {number(found.both)} times the SLOs,"
    text += f" before fewer than {percent(slo.attainment)} of the requests meet them."
    if analysis.problem.rate is None:
        text += " That this is little lies in the rate, which is the highest that meets the target."
    return text


def confidence(analysis: Analysis) -> str:
    """What chance does to the figures."""
    problem, evaluation = analysis.problem, analysis.evaluation
    low, high = analysis.goodput_range
    seeds = len(evaluation.attainments)
    text = (
        f"{percent(evaluation.attainment)} of the requests meet both SLOs at "
        f"{number(evaluation.rate)} requests/s"
    )
    if seeds > 1:
        text += (
            f", give or take {percent(evaluation.spread)} over {seeds} versions of the workload, "
            f"for which the goodput lies between {number(low)} and {number(high)} requests/s"
        )
    sentences = [f"{text}."]
    if problem.rate is not None and low < problem.rate:
        sentences.append(
            f"With the least fortunate of them the plan falls short of {number(problem.rate)}: "
            "leave a reserve."
        )
    runner_up = analysis.runner_up
    if runner_up is not None and near_runner_up(analysis):
        sentences.append(
            f"The runner-up ({LAYOUTS[runner_up.layout]}, {number(runner_up.goodput)} requests/s "
            f"on {plural(runner_up.placement.gpus, 'GPU')}) is within the noise: take either."
        )
    return " ".join(sentences)


def ruled_out(analysis: Analysis) -> str:
    """The layouts without a plan, and why; empty where every layout has one."""
    return " ".join(
        f"{LAYOUTS[layout].capitalize()}: no plan, {reason}."
        for layout, reason in analysis.search.absent.items()
    )
