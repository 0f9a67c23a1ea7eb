"""The recommendation, what it gains, and why as far as that is known."""

import math

from pdserve.planner.analysis import Analysis
from pdserve.planner.cluster import Cluster
from pdserve.planner.plan import Role, Shape
from pdserve.planner.report.facts import (
    ROLES,
    advantage,
    best_per_gpu,
    candidates,
    capacities,
    colocated_per_gpu,
    ideal_per_gpu,
    is_colocated,
    lost_on_the_way,
    mean_kv_bytes,
    million_tokens_price,
    promised,
)
from pdserve.planner.report.formats import duration, listed, number, percent, plural, size
from pdserve.planner.report.names import LAYOUTS, ROLE_NAMES, gpus_of, parallelism
from pdserve.planner.search import Found

# What single instances promise must differ by more than they are exact, to be called a reason.
_CLEAR = 1.03
# A plan that serves less than this share of what its instances promise lacks a network for it.
_MOSTLY_LOST = 0.7
# Prompts that take less than this share of the TPOT SLO count as short.
_SHORT = 0.5


def headline(analysis: Analysis) -> str:
    """The recommendation in one short line."""
    best = analysis.best
    counts = [
        f"{best.placement.count(role)} {ROLE_NAMES[role]}"
        for role in ROLES
        if best.placement.count(role)
    ]
    verdict = "Do not disaggregate" if is_colocated(best) else "Disaggregate"
    noun = "instance" if counts == ["1 colocated"] else "instances"
    return f"{verdict}: {' + '.join(counts)} {noun} on {plural(best.placement.gpus, 'GPU')}"


def recommendation(analysis: Analysis) -> str:
    """What to deploy, what it serves, and how that compares."""
    problem, best = analysis.problem, analysis.best
    verdict = "Do not disaggregate" if is_colocated(best) else "Disaggregate"
    rate = number(best.goodput)
    if problem.rate is not None:
        rate = f"{number(problem.rate)} requests/s and up to {rate}"
    where = f"on {gpus_of(best.placement)}"
    verb = "serves" if len(best.placement.instances) == 1 else "serve"
    text = (
        f"{verdict}: {_instances(problem.cluster, best)} {verb} {rate} requests/s {where}, "
        f"{number(best.per_gpu)} per GPU. {_comparison(analysis)}"
    )
    if best.price:
        text += (
            f" It costs {number(best.price)} an hour, "
            f"{number(million_tokens_price(problem, best))} per million output tokens."
        )
    return text


def reason(analysis: Analysis) -> str:
    """Why disaggregation is worth it, or why it is not; empty where the figures do not say."""
    if is_colocated(analysis.best):
        return _why_colocated(analysis)
    together, apart = colocated_per_gpu(analysis), ideal_per_gpu(analysis)
    if not together:
        return "No colocated instance meets both SLOs at any rate; the phases apart do."
    if apart < together * _CLEAR:
        return ""
    return (
        f"In a colocated instance prompts and tokens wait for each other: the best of them serves "
        f"{number(together)} requests/s per GPU. {_phases_alone(analysis)}"
    )


def _instances(cluster: Cluster, found: Found) -> str:
    """How many instances there are of what."""
    phrases = []
    for role in ROLES:
        shapes = [item for item in found.placement.shapes().items() if item[0].role == role]
        if shapes:
            phrases.append(_of_role(cluster, role, shapes))
    return " and ".join(phrases) + _chunks(found)


def _of_role(cluster: Cluster, role: Role, shapes: list[tuple[Shape, int]]) -> str:
    total = sum(count for _, count in shapes)
    noun = plural(total, f"{ROLE_NAMES[role]} instance")
    if len(shapes) == 1:
        return f"{noun} ({parallelism(cluster, shapes[0][0])})"
    ordered = sorted(shapes, key=lambda item: (-item[1], -item[0].gpus))
    each = [f"{count} of {parallelism(cluster, shape)}" for shape, count in ordered]
    return f"{noun} ({listed(each)})"


def _chunks(found: Found) -> str:
    budgets = sorted({each.max_batch_tokens for each in found.placement.instances})
    if found.layout == "colocated-chunked":
        tokens = listed([number(budget) for budget in budgets])
        return f", with prompts in chunks of up to {tokens} tokens a step,"
    return ", with whole prompts," if found.layout == "colocated-whole" else ""


def _comparison(analysis: Analysis) -> str:
    """How the plan compares to the best of the other kind."""
    problem, best, rival = analysis.problem, analysis.best, analysis.rival
    other = "disaggregated" if is_colocated(best) else "colocated"
    if rival is None:
        return f"No {other} layout has a plan."
    if not rival.goodput:
        return f"No {other} layout serves any rate."
    gain = number(advantage(problem, best, rival))
    name = f"the best {other} layout ({LAYOUTS[rival.layout]})"
    where = plural(rival.placement.gpus, "GPU")
    if problem.rate is None:
        served = f"{number(rival.goodput)} requests/s on {where}"
        return f"That is {gain} times the goodput of {name}, which serves {served}."
    needs = f"costs {number(rival.price)} an hour" if best.price else f"needs {where}"
    much = f"{gain} times as much" if gain != "1" else "as much as this"
    return f"{name[0].upper()}{name[1:]} {needs} for the same rate, {much}."


def _phases_alone(analysis: Analysis) -> str:
    instances = analysis.search.instances
    prefill, decode = best_per_gpu(instances["prefill"]), best_per_gpu(instances["decode"])
    return (
        f"By itself prefill serves {number(prefill)} and decode {number(decode)} per GPU, which "
        f"with GPUs divided as the phases need them comes to {number(ideal_per_gpu(analysis))}."
    )


def _why_colocated(analysis: Analysis) -> str:
    sentences = [*_why_rival_loses(analysis), *_short_prompts(analysis)]
    return " ".join(sentences)


def _why_rival_loses(analysis: Analysis) -> list[str]:
    """What holds the best disaggregated plan back."""
    rival, needed = analysis.rival, _least_gpus(analysis)
    if not needed:
        return ["By itself one of the phases meets its SLO at no rate."]
    budget = analysis.problem.gpu_budget
    if needed > budget:
        return [
            f"A prefill and a decode instance take at least {plural(needed, 'GPU')}; there are "
            f"{budget}."
        ]
    if rival is None:
        return []
    together = colocated_per_gpu(analysis)
    if ideal_per_gpu(analysis) < together * _CLEAR:
        return [
            f"There is little interference to remove: a colocated instance serves "
            f"{number(together)} requests/s per GPU. {_phases_alone(analysis)}"
        ]
    apart = next((f for f in analysis.search.found if f.layout == "apart"), rival)
    if lost_on_the_way(analysis, apart):
        return [_handoff(analysis, apart)]
    phases = capacities(analysis, rival)
    served = min(phase.goodput for phase in phases) / rival.placement.gpus
    if served < promised(analysis, analysis.best) / analysis.best.placement.gpus:
        each = listed([f"{number(phase.goodput)} requests/s of {phase.role}" for phase in phases])
        return [
            f"The GPUs cannot be divided as the phases need them: the best division is good for "
            f"{each}, {number(served)} per GPU where {number(ideal_per_gpu(analysis))} would be "
            f"possible with any."
        ]
    return []


def _handoff(analysis: Analysis, found: Found) -> str:
    """What instances promise by themselves is lost on KV's way, or where both phases must meet."""
    served, alone = number(found.goodput), number(promised(analysis, found))
    if found.goodput > promised(analysis, found) * _MOSTLY_LOST:
        return (
            f"By themselves the instances of the disaggregated plan promise {alone} requests/s; "
            f"both SLOs at once, and the way of KV, leave {served}."
        )
    kv = size(mean_kv_bytes(analysis.problem))
    return (
        f"KV takes too long from prefill to decode: that of a prompt of mean length is {kv}, and "
        f"with prefill and decode on any nodes the plan serves {served} requests/s of the {alone} "
        f"that its instances promise by themselves."
    )


def _short_prompts(analysis: Analysis) -> list[str]:
    """Prompts that take no longer than a token may: they hardly hold decode steps up."""
    problem, largest = analysis.problem, analysis.best.placement.instances[0]
    mean = float(problem.workload.prompt_tokens.mean())
    seconds = problem.cost(largest.gpu, largest.tp, largest.pp).prefill_s(mean)
    if not (math.isfinite(problem.slo.tpot_s) and seconds < _SHORT * problem.slo.tpot_s):
        return []
    return [
        f"A prompt of mean length ({number(mean)} tokens) takes {duration(seconds)} of such an "
        f"instance ({percent(seconds / problem.slo.tpot_s)} of the TPOT SLO), so that it holds up "
        f"decode steps but little."
    ]


def _least_gpus(analysis: Analysis) -> int:
    """GPUs of the smallest prefill and the smallest decode instance; 0 where one has none."""
    smallest = [
        min((each.shape.gpus for each in candidates(analysis, role, "apart")), default=0)
        for role in ("prefill", "decode")
    ]
    return sum(smallest) if all(smallest) else 0
