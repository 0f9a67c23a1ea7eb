"""What the plan asks of the network, and whether stages should share nodes for it."""

import math

from pdserve.planner.analysis import Analysis
from pdserve.planner.report.facts import (
    is_colocated,
    lost_on_the_way,
    mean_kv_bytes,
    moved_bytes_per_s,
    promised,
)
from pdserve.planner.report.formats import bandwidth, number, percent, plural, size
from pdserve.planner.search import Found


def transfers(analysis: Analysis) -> str:
    """KV of a prompt, KV under way, and the busiest link; empty where nothing moves."""
    if is_colocated(analysis.best):
        return ""
    tokens = number(float(analysis.problem.workload.prompt_tokens.mean()))
    text = (
        f"The KV of a prompt of mean length ({tokens} tokens) is "
        f"{size(mean_kv_bytes(analysis.problem))}; the plan moves "
        f"{bandwidth(moved_bytes_per_s(analysis))} of it"
    )
    if math.isfinite(analysis.local_share):
        text += f", of which {percent(analysis.local_share)} stay inside nodes"
    if not analysis.links:
        return f"{text}."
    busiest = analysis.links[0]
    return (
        f"{text}. The busiest link, {busiest.name}, carries {bandwidth(busiest.bytes_per_s)} on "
        f"average, {percent(busiest.utilisation)} of what it can."
    )


def affinity(analysis: Analysis) -> str:
    """Why a stage's prefill and decode share a node, or need not."""
    if is_colocated(analysis.best) or len(analysis.problem.cluster.nodes) == 1:
        return ""
    other = "apart" if analysis.best.layout == "paired" else "paired"
    found = next((each for each in analysis.search.found if each.layout == other), None)
    if other == "apart":
        return _why_paired(analysis, found)
    return _why_apart(analysis, found)


def _why_paired(analysis: Analysis, apart: Found | None) -> str:
    text = "Prefill and decode of a stage share a node, so that KV never crosses the network"
    if apart is None:
        reason = analysis.search.absent.get("apart", "")
        return f"{text}. With stages anywhere there is no plan: {reason}."
    served = f"{number(apart.goodput)} requests/s on {plural(apart.placement.gpus, 'GPU')}"
    if lost_on_the_way(analysis, apart):
        return (
            f"{text}, which is too slow for them to be anywhere: that would serve {served}, where "
            f"its instances alone promise {number(promised(analysis, apart))}."
        )
    return f"{text}. With stages anywhere the plan would serve {served}."


def _why_apart(analysis: Analysis, paired: Found | None) -> str:
    text = "Prefill and decode may be on any nodes: the network is fast enough for KV to cross it"
    if paired is None:
        reason = analysis.search.absent.get("paired", "")
        return f"{text}. With the stages of both on the same nodes there is no plan: {reason}."
    where = plural(paired.placement.gpus, "GPU")
    if analysis.problem.rate is not None:
        return f"{text}. Stages that share nodes would need {where} for the same rate."
    share = percent(paired.goodput / analysis.best.goodput)
    return (
        f"{text}. Stages that share nodes would serve {number(paired.goodput)} requests/s on "
        f"{where}, {share} of that."
    )
