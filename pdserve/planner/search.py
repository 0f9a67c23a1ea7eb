"""The search for a plan: single instances, then how many of them, then all of it together.

For each layout the phases' goodputs make an integer program whose answer is placed on the cluster
and simulated as a whole, with its transfers on the links that they would cross. What the program
could not see (links, the other phase's waiting) shows there, and the plan grows or shrinks by it.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

from pdserve.errors import ConfigError
from pdserve.planner.assembly import Limits, Option, least_cost, most_goodput
from pdserve.planner.evaluation import Bench
from pdserve.planner.phases import Candidate, judge_instances
from pdserve.planner.placement import Placer
from pdserve.planner.plan import Layout, Placement, Role, Shape
from pdserve.planner.problem import Problem
from pdserve.planner.units import judge_units

# A plan for a rate is sought between so much and a multiple of it, down to this factor.
_LEAST_SHARE, _MOST_SHARE = 0.6, 2.0
_MARGIN = 1.03
# By how much prefill may count for less or more than it is worth by itself.
_WEIGHTS = (1.0, 0.85, 0.92, 1.08, 1.18)
# How often the largest of an answer's instances are left out.
_SMALLER = 3
_ROLES: tuple[tuple[Layout, Role], ...] = (
    ("apart", "prefill"),
    ("apart", "decode"),
    ("colocated-chunked", "both"),
    ("colocated-whole", "both"),
)

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """What a layout is made of: one instance, or a unit of several on the same nodes."""

    shapes: tuple[Shape, ...]
    option: Option


@dataclass(frozen=True, slots=True)
class Found:
    """A layout's best plan, as simulated: `goodput` in requests per second, `price` an hour."""

    placement: Placement
    goodput: float
    price: float

    @property
    def layout(self) -> Layout:
        """How the phases share the cluster."""
        return self.placement.layout

    @property
    def per_gpu(self) -> float:
        """Goodput per GPU."""
        return self.goodput / self.placement.gpus


@dataclass(frozen=True, slots=True)
class Search:
    """All that the search has found: the best plan first, and what each shape can do by itself.

    `absent` says of each other layout why it has no plan.
    """

    found: Sequence[Found]
    absent: dict[Layout, str]
    instances: dict[str, Sequence[Candidate]]


def search(problem: Problem, progress: Progress = lambda _text, _steps: None) -> Search:
    """The best plan for each layout, ordered by what the problem asks for.

    `progress` hears what is being done, and of each simulated candidate. Raises `ConfigError` that
    says which constraint binds where no layout has a plan.
    """
    threads = problem.effort.threads or len(os.sched_getaffinity(0))
    problem = replace(problem, effort=replace(problem.effort, threads=threads))
    with ThreadPoolExecutor(threads, "simulate") as executor:
        judged = _judge(problem, executor, progress)
        parts = _parts(problem, judged, executor, progress)
        progress("simulating whole plans", 0)
        results = list(executor.map(lambda item: _best_of(problem, *item), parts.items()))
    found = [result for result in results if isinstance(result, Found)]
    absent = {
        layout: result
        for layout, result in zip(parts, results, strict=True)
        if isinstance(result, str)
    }
    if not found:
        raise ConfigError(_why_none(problem, judged, absent), field="slo")
    return Search(sorted(found, key=lambda each: _rank(problem, each)), absent, judged)


def _rank(problem: Problem, found: Found) -> tuple[float, float]:
    """Least is best: the price or GPUs for a given rate, else the goodput."""
    if problem.rate is None:
        return (-found.goodput, found.placement.gpus)
    return (found.price or found.placement.gpus, -found.goodput)


def _judge(
    problem: Problem, executor: Executor, progress: Progress
) -> dict[str, Sequence[Candidate]]:
    judged: dict[str, Sequence[Candidate]] = {}
    for layout, role in _ROLES:
        name = role if role != "both" else layout
        progress(f"judging {name} instances", 0)
        judged[name] = judge_instances(problem, layout, role, executor, lambda: progress("", 1))
    return judged


def _parts(
    problem: Problem,
    judged: dict[str, Sequence[Candidate]],
    executor: Executor,
    progress: Progress,
) -> dict[Layout, list[Part]]:
    """What each layout can be made of."""
    prefill, decode = judged["prefill"], judged["decode"]
    progress("judging paired units", 0)
    units = judge_units(problem, prefill, decode, executor, lambda: progress("", 1))
    return {
        "apart": [_single(problem, each, each.shape.role) for each in (*prefill, *decode)],
        "paired": [_part(problem, unit.shapes, unit.room, unit.goodput, "both") for unit in units],
        "colocated-chunked": [
            _single(problem, each, "both") for each in judged["colocated-chunked"]
        ],
        "colocated-whole": [_single(problem, each, "both") for each in judged["colocated-whole"]],
    }


def _single(problem: Problem, candidate: Candidate, phase: str) -> Part:
    return _part(
        problem, (candidate.shape,), _room(problem, candidate.shape), candidate.goodput, phase
    )


def _room(problem: Problem, shape: Shape) -> float:
    """What an instance takes of its nodes, with what is too little for another one like it."""
    node = max(node.gpus for node in problem.cluster.nodes_of(shape.gpu))
    piece, pieces = (shape.gpus, 1) if shape.gpus <= node else (shape.tp, shape.pp)
    return float(pieces * (node // (node // piece)))


def _part(
    problem: Problem, shapes: tuple[Shape, ...], room: float, goodput: float, phase: str
) -> Part:
    kind, gpus = shapes[0].gpu, sum(shape.gpus for shape in shapes)
    price = problem.cluster.price(kind) * gpus
    return Part(shapes, Option({phase: goodput}, {kind: gpus}, {kind: room}, price, len(shapes)))


def _best_of(problem: Problem, layout: Layout, parts: Sequence[Part]) -> Found | str:
    """The layout's best plan, or why it has none."""
    options = [part.option for part in parts]
    if len({phase for option in options for phase in option.rates}) < (
        2 if layout == "apart" else 1
    ):
        return "no instance meets the SLOs, however few requests it gets"
    limits = Limits(
        {kind: problem.cluster.gpus_of(kind) for kind in problem.cluster.kinds}, problem.gpu_budget
    )
    try:
        if problem.rate is None:
            return _for_goodput(problem, layout, parts, limits)
        return _for_rate(problem, layout, parts, limits, problem.rate)
    except ConfigError as error:
        return str(error)


def _for_goodput(
    problem: Problem, layout: Layout, parts: Sequence[Part], limits: Limits
) -> Found | str:
    """The plan with the most goodput when it is simulated as a whole.

    What a phase is worth beside the other one and on its links may differ from what it is worth
    alone, so several answers of the program are simulated.
    """
    best: Found | None = None
    refused = f"nothing fits on {problem.gpu_budget} GPUs"
    for rate, counts in _answers(layout, [part.option for part in parts], limits):
        try:
            placement = _place(problem, layout, parts, counts)
        except ConfigError as error:
            refused = str(error)
            continue
        found = _simulated(problem, placement, rate)
        if best is None or _rank(problem, found) < _rank(problem, best):
            best = found
    if best is None:
        return refused
    return best if best.goodput > 0 else "as a whole it meets the SLOs at no rate"


def _answers(
    layout: Layout, options: Sequence[Option], limits: Limits
) -> Iterator[tuple[float, list[int]]]:
    """Different answers of the program: rates, and counts of the options.

    Prefill is counted for less and for more than it is worth. Then what is largest in an answer is
    left out of the next: smaller instances spread over the nodes, and so does what they receive.
    """
    seen = set[tuple[int, ...]]()
    for weight in _WEIGHTS if layout == "apart" else (1.0,):
        rate, counts = most_goodput([_weighted(option, weight) for option in options], limits)
        if counts and tuple(counts) not in seen:
            seen.add(tuple(counts))
            yield rate, counts
    left = list(options)
    _, counts = most_goodput(left, limits)
    for _ in range(_SMALLER):
        used = [k for k, count in enumerate(counts) if count]
        if not used:
            return
        largest = max(used, key=lambda k: sum(left[k].gpus.values()))
        left[largest] = replace(left[largest], rates={})
        rate, counts = most_goodput(left, limits)
        if counts and tuple(counts) not in seen:
            seen.add(tuple(counts))
            yield rate, counts


def _weighted(option: Option, prefill: float) -> Option:
    rates = {
        phase: rate * (prefill if phase == "prefill" else 1.0)
        for phase, rate in option.rates.items()
    }
    return replace(option, rates=rates)


def _for_rate(
    problem: Problem, layout: Layout, parts: Sequence[Part], limits: Limits, rate: float
) -> Found | str:
    """The least plan that serves `rate` when it is simulated as a whole.

    The program's sum of single goodputs is asked for more where links and waiting have their share,
    and for less where many instances bear bursts better than few: by bisection, as a goodput is
    found.
    """
    options = [part.option for part in parts]
    best: Placement | None = None
    asked, too_little, enough = rate, rate * _LEAST_SHARE, math.inf
    while enough > too_little * _MARGIN:
        counts = least_cost(options, limits, asked)
        try:
            placement = _place(problem, layout, parts, counts) if counts else None
        except ConfigError:
            placement = None
        if placement is None:
            enough = asked  # more than there is, or than finds room
        elif Bench(problem, placement).serves(rate):
            best, enough = placement, asked
        else:
            too_little = asked
        asked = math.sqrt(too_little * min(enough, too_little * _MOST_SHARE))
    if best is not None:
        return _simulated(problem, best, rate)
    most, _ = most_goodput(options, limits)
    return f"its instances add up to {most:.3g} requests/s at most, links and waiting aside"


def _simulated(problem: Problem, placement: Placement, guess: float) -> Found:
    price = sum(problem.cluster.price(each.gpu) * each.gpus for each in placement.instances)
    return Found(placement, Bench(problem, placement).goodput(guess), price)


def _place(
    problem: Problem, layout: Layout, parts: Sequence[Part], counts: Sequence[int]
) -> Placement:
    wanted = [(part, count) for part, count in zip(parts, counts, strict=True) if count]
    placer = Placer(problem.cluster)
    if layout != "paired":
        placer.spread([(part.shapes[0], count) for part, count in wanted])
        return placer.placement(layout)
    group = 0
    for part, count in sorted(wanted, key=lambda each: -each[0].option.instances):
        for _ in range(count):
            group += 1
            placer.unit(part.shapes, group)
    return placer.placement(layout)


def _why_none(
    problem: Problem, judged: dict[str, Sequence[Candidate]], absent: dict[Layout, str]
) -> str:
    """Which constraint makes the problem impossible."""
    fitting = [
        (kind, tp, pp) for kind in problem.cluster.kinds for tp, pp in problem.parallelisms(kind)
    ]
    if not fitting:
        return (
            f"{problem.model} fits no instance: no TP and PP up to the nodes' GPUs leaves room for "
            "KV beside its weights"
        )
    for role, bound in (("prefill", "TTFT"), ("decode", "TPOT")):
        if not judged[role]:
            return f"the {bound} SLO cannot be met: {_fastest(problem, role, fitting)}"
    reasons = "; ".join(f"{layout}: {reason}" for layout, reason in absent.items())
    if problem.rate is None:
        return f"no plan meets the SLOs: {reasons}"
    return f"no plan serves {problem.rate:g} requests/s on {problem.gpu_budget} GPUs: {reasons}"


def _fastest(problem: Problem, role: str, fitting: Sequence[tuple[str, int, int]]) -> str:
    """What an idle instance of the best shape does for a request of the workload."""
    import numpy as np

    prompts = problem.workload.prompt_tokens
    share = problem.slo.attainment
    tokens = float(np.quantile(prompts, share))
    if role == "prefill":
        seconds, kind, tp, pp = min(
            (problem.cost(kind, tp, pp).prefill_s(tokens), kind, tp, pp) for kind, tp, pp in fitting
        )
        return (
            f"an idle instance (tp={tp},pp={pp} on {kind}) takes {seconds * 1e3:.0f} ms for a "
            f"prompt of {tokens:.0f} tokens, which {share:.0%} of the prompts do not exceed; the "
            f"SLO is {problem.slo.ttft_s * 1e3:g} ms"
        )
    seconds, kind, tp, pp = min(
        (problem.cost(kind, tp, pp).decode_s(1, float(prompts.mean())), kind, tp, pp)
        for kind, tp, pp in fitting
    )
    return (
        f"an instance (tp={tp},pp={pp} on {kind}) that decodes one sequence takes "
        f"{seconds * 1e3:.1f} ms a token; the SLO is {problem.slo.tpot_s * 1e3:g} ms"
    )
