"""Why so many instances of each phase, and why of these shapes."""

import math

from pdserve.planner.analysis import Analysis
from pdserve.planner.plan import Shape
from pdserve.planner.problem import Problem
from pdserve.planner.report.facts import PhaseCapacity, candidates, capacities
from pdserve.planner.report.formats import listed, number, plural
from pdserve.planner.report.names import ROLE_NAMES, parallelism

_ALTERNATIVES = 3
_MANY = 6
_CLEAR = 1.01


def ratio(analysis: Analysis) -> str:
    """What the plan's instances serve by themselves, and how many of them the rate needs."""
    phases = capacities(analysis, analysis.best)
    rate = analysis.evaluation.rate
    sentences = [_served(analysis, phase) for phase in phases]
    needs = [
        f"{number(rate / phase.parts[0][2])} {ROLE_NAMES[phase.role]}"
        for phase in phases
        if len(phase.parts) == 1 and math.isfinite(phase.goodput)
    ]
    if len(needs) == len(phases):
        sentences.append(
            f"{number(rate)} requests/s therefore need {listed(needs)} instances of that kind."
        )
    if any(phase.goodput < rate for phase in phases):
        sentences.append(
            "The plan serves more than that: the more instances, the better they bear bursts."
        )
    return " ".join(sentences)


def shapes(analysis: Analysis) -> str:
    """The parallelism of each phase beside its alternatives, by goodput per GPU."""
    sentences = [_alternatives(analysis, phase) for phase in capacities(analysis, analysis.best)]
    sentences += _impossible(analysis)
    return " ".join(sentences)


def _served(analysis: Analysis, phase: PhaseCapacity) -> str:
    cluster = analysis.problem.cluster
    name = ROLE_NAMES[phase.role]
    alone = f"{name.capitalize()} alone: " if phase.role != "both" else ""
    if len(phase.parts) == 1:
        shape, count, goodput = phase.parts[0]
        every = f", all {count} of them {number(phase.goodput)}" if count > 1 else ""
        subject = f"an instance ({parallelism(cluster, shape)})"
        if not alone:
            subject = subject.capitalize()
        return f"{alone}{subject} serves {number(goodput)} requests/s{every}."
    parts = " + ".join(
        f"{count} × {number(goodput)} ({parallelism(cluster, shape)})"
        for shape, count, goodput in phase.parts
    )
    return f"{alone}{phase.instances} instances serve {parts} = {number(phase.goodput)} requests/s."


def _alternatives(analysis: Analysis, phase: PhaseCapacity) -> str:
    """The phase's main shape and the best others."""
    cluster = analysis.problem.cluster
    chosen, _, goodput = phase.parts[0]
    mine = goodput / chosen.gpus
    seen = {_key(chosen)}
    others = []
    for each in candidates(analysis, phase.role, analysis.best.layout):
        if _key(each.shape) not in seen:
            seen.add(_key(each.shape))
            others.append(each)
    text = (
        f"{ROLE_NAMES[phase.role].capitalize()} with {parallelism(cluster, chosen)} serves "
        f"{number(mine)} requests/s per GPU"
    )
    if not others:
        return f"{text}; no other shape meets the SLO."
    listing = listed(
        [
            f"{parallelism(cluster, each.shape)} {number(each.per_gpu)}"
            for each in others[:_ALTERNATIVES]
        ]
    )
    text += f"; next to it {listing}."
    if others[0].per_gpu > mine * _CLEAR:
        text += " What is better by itself does not add up to a better plan."
    return text


def _impossible(analysis: Analysis) -> list[str]:
    """The shapes that meet a phase's SLO at no rate."""
    problem, best = analysis.problem, analysis.best
    every = {(kind, *each) for kind in problem.cluster.kinds for each in problem.parallelisms(kind)}
    sentences = []
    for phase in capacities(analysis, best):
        able = {_key(each.shape) for each in candidates(analysis, phase.role, best.layout)}
        unable = sorted(every - able)
        bound = {"prefill": "the TTFT SLO", "decode": "the TPOT SLO"}.get(phase.role, "the SLOs")
        subject = f"{ROLE_NAMES[phase.role].capitalize()} meets {bound} at no rate with"
        if 0 < len(unable) <= _MANY:
            names = [f"tp={tp},pp={pp}" + _on(problem, kind) for kind, tp, pp in unable]
            sentences.append(f"{subject} {listed(names)}.")
        elif unable:
            sentences.append(f"{subject} {plural(len(unable), 'other shape')}.")
    return sentences


def _on(problem: Problem, kind: str) -> str:
    return f" on {kind}" if len(problem.cluster.kinds) > 1 else ""


def _key(shape: Shape) -> tuple[str, int, int]:
    return (shape.gpu, shape.tp, shape.pp)
