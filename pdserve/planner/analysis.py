"""What is worth knowing of a search's plans: curves, margins, what binds, and where KV goes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.planner.evaluation import Bench, Evaluation
from pdserve.planner.plan import Placement
from pdserve.planner.problem import Problem
from pdserve.planner.search import Found, Search
from pdserve.planner.simulator.result import Floats

# The rates of a curve, as shares of the plan's goodput.
_CURVE = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
# How far above its goodput a plan is driven to see what gives way first.
_OVERLOAD = 1.15
_BUSY = 0.95


@dataclass(frozen=True, slots=True)
class Curve:
    """Attainment against rate: mean, least and most over the seeds, `[rates]` each."""

    found: Found
    rates: Sequence[float]
    attainment: Sequence[float]
    least: Sequence[float]
    most: Sequence[float]


@dataclass(frozen=True, slots=True)
class Margins:
    """By which factor SLOs can shrink before attainment falls below its target, at one rate.

    `both` scales them together (the SLO scale of DistServe, OSDI 2024, section 6.2), `ttft` and
    `tpot` one while the other stays. NaN where the target is missed as it is.
    """

    ttft: float
    tpot: float
    both: float


@dataclass(frozen=True, slots=True)
class Binding:
    """What gives way first under overload, and how often each SLO is missed then."""

    resource: str
    ttft_missed: float
    tpot_missed: float


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """A link's expected bytes per second, and what it can do."""

    name: str
    bytes_per_s: float
    capacity: float

    @property
    def utilisation(self) -> float:
        """Share of the link that is used."""
        return self.bytes_per_s / self.capacity


@dataclass(frozen=True, slots=True)
class Analysis:
    """A plan under the magnifying glass, at the rate that was asked for or that it reaches."""

    problem: Problem
    search: Search
    evaluation: Evaluation
    rival_evaluation: Evaluation | None  # at the same rate
    goodput_range: tuple[float, float]
    curves: Sequence[Curve]
    margins: Margins
    binding: Binding
    links: Sequence[LinkLoad]
    flows: Floats  # [prefill instances, decode instances], bytes per second

    @property
    def best(self) -> Found:
        """The plan."""
        return self.search.found[0]

    @property
    def runner_up(self) -> Found | None:
        """The best plan of another layout."""
        return self.search.found[1] if len(self.search.found) > 1 else None

    @property
    def rival(self) -> Found | None:
        """The best plan of the other kind: colocated if the plan is not, disaggregated if it is."""
        return _rival(self.search)

    @property
    def colocated(self) -> Found | None:
        """The best plan without disaggregation."""
        return next((f for f in self.search.found if f.layout.startswith("colocated")), None)

    @property
    def disaggregated(self) -> Found | None:
        """The best plan with disaggregation."""
        return next((f for f in self.search.found if not f.layout.startswith("colocated")), None)

    @property
    def price_per_million_tokens(self) -> float:
        """Price of a million output tokens at the evaluated rate; 0 where no prices are given."""
        tokens_per_hour = self.evaluation.rate * self.problem.mean_output * 3600
        return self.best.price / tokens_per_hour * 1e6

    @property
    def local_share(self) -> float:
        """Share of the KV bytes that stay within their node; NaN where nothing moves."""
        nodes = {each.name: each.nodes for each in self.best.placement.instances}
        p, d = names(self.best.placement, "prefill"), names(self.best.placement, "decode")
        same = np.array([[set(nodes[a]) == set(nodes[b]) for b in d] for a in p], dtype=float)
        return float((self.flows * same).sum() / self.flows.sum()) if self.flows.any() else np.nan


def analyse(problem: Problem, search: Search, progress: Callable[[str, int], None]) -> Analysis:
    """Simulates the best plans further, to say how they behave and why."""
    best = search.found[0]
    bench = Bench(problem, best.placement)
    rate = problem.rate or best.goodput
    progress("the plan at its rate", 0)
    evaluation = bench.at(rate)
    progress("what binds", 0)
    overload = bench.at(best.goodput * _OVERLOAD, seeds=1)
    progress("goodput with other seeds", 0)
    goodputs = [best.goodput] + [
        bench.goodput(best.goodput, seed) for seed in range(1, problem.effort.seeds)
    ]
    rival = _rival(search)
    if rival is not None:
        progress(f"the same rate, {rival.layout}", 0)
    curves = []
    for found in _to_compare(search):
        progress(f"attainment against rate, {found.layout}", 1)
        curves.append(_curve(problem, found, best.goodput))
    return Analysis(
        problem=problem,
        search=search,
        evaluation=evaluation,
        rival_evaluation=Bench(problem, rival.placement).at(rate) if rival else None,
        goodput_range=(min(goodputs), max(goodputs)),
        curves=curves,
        margins=margins(problem, evaluation),
        binding=_binding(problem, bench, overload),
        links=_links(bench, evaluation),
        flows=_flows(problem, best.placement, evaluation),
    )


def margins(problem: Problem, evaluation: Evaluation) -> Margins:
    """By which factors the SLOs can shrink, from the times that were simulated."""
    slo = problem.slo
    ttft = np.nan_to_num(evaluation.ttft_s / slo.ttft_s, nan=np.inf)
    tpot = np.nan_to_num(evaluation.tpot_s / slo.tpot_s, nan=np.inf)
    return Margins(
        ttft=_factor(np.where(tpot <= 1, ttft, np.inf), slo.attainment),
        tpot=_factor(np.where(ttft <= 1, tpot, np.inf), slo.attainment),
        both=_factor(np.maximum(ttft, tpot), slo.attainment),
    )


def names(placement: Placement, role: str) -> list[str]:
    """The names of the instances with this role, in their order."""
    return [each.name for each in placement.instances if each.role == role]


def _factor(needed: Floats, attainment: float) -> float:
    """The least factor that the target share of requests bears; NaN above 1."""
    rank = int(np.ceil(attainment * len(needed) - 1e-9)) - 1
    factor = float(np.partition(needed, rank)[rank])
    return factor if factor <= 1 else float("nan")


def _rival(search: Search) -> Found | None:
    """The best plan that is colocated if the very best is not, and the other way round."""
    colocated = search.found[0].layout.startswith("colocated")
    others = (f for f in search.found if f.layout.startswith("colocated") != colocated)
    return next(others, None)


def _to_compare(search: Search) -> list[Found]:
    """The best plan, the runner-up, and the best of the other kind where it is neither."""
    chosen = list(search.found[:2])
    rival = _rival(search)
    if rival is not None and rival not in chosen:
        chosen.append(rival)
    return chosen


def _curve(problem: Problem, found: Found, goodput: float) -> Curve:
    bench = Bench(problem, found.placement)
    seen = [bench.at(share * goodput) for share in _CURVE]
    return Curve(
        found=found,
        rates=[each.rate for each in seen],
        attainment=[each.attainment for each in seen],
        least=[min(each.attainments) for each in seen],
        most=[max(each.attainments) for each in seen],
    )


def _binding(problem: Problem, bench: Bench, overload: Evaluation) -> Binding:
    """Which resource an overloaded plan lacks, by the SLO that it misses and the time behind it."""
    slo, result = problem.slo, overload.results[0]
    ttft_missed = float(np.mean(~(result.ttft_s <= slo.ttft_s)))
    tpot_missed = float(np.mean(~(result.tpot_s <= slo.tpot_s)))
    uses = list(zip(bench.placement.instances, result.instances, strict=True))
    if bench.placement.layout.startswith("colocated"):
        resource = "decode steps" if tpot_missed > ttft_missed else "prefill computing"
        if max(use.kv_peak for _, use in uses) > _BUSY and result.preemptions.any():
            resource = "KV memory"
        return Binding(resource, ttft_missed, tpot_missed)
    if ttft_missed >= tpot_missed:
        full = [use.kv_peak > _BUSY for each, use in uses if each.role == "prefill"]
        busy = [use.busy for each, use in uses if each.role == "prefill"]
        held = np.mean(full) > 0.5 and np.mean(busy) < _BUSY
        resource = "KV memory of prefill" if held else "prefill computing"
        return Binding(resource, ttft_missed, tpot_missed)
    handoff = np.nansum(result.handoff_s)
    decoding = np.nansum(result.tpot_s * (overload.loads[0].output_tokens - 1))
    if handoff < 0.5 * decoding:
        return Binding("decode steps", ttft_missed, tpot_missed)
    waited = np.nansum(result.admission_s) > 0.5 * handoff
    return Binding("KV memory of decode" if waited else "links", ttft_missed, tpot_missed)


def _links(bench: Bench, evaluation: Evaluation) -> list[LinkLoad]:
    """Every link that is used and has a limit, the busiest first."""
    result = evaluation.results[0]
    loads = [
        LinkLoad(name, float(sent / result.end_s), float(capacity))
        for name, sent, capacity in zip(
            bench.link_names, result.sent_bytes, bench.links.bytes_per_s, strict=True
        )
        if sent > 0 and np.isfinite(capacity)
    ]
    return sorted(loads, key=lambda load: -load.utilisation)


def _flows(problem: Problem, placement: Placement, evaluation: Evaluation) -> Floats:
    """KV bytes per second from each prefill to each decode instance."""
    result = evaluation.results[0]
    count = len(placement.instances)
    flows = np.zeros((count, count))
    moved = (result.prefill_on >= 0) & (result.decode_on >= 0)
    size = evaluation.loads[0].prompt_tokens[moved] * problem.kv_bytes / result.end_s
    np.add.at(flows, (result.prefill_on[moved], result.decode_on[moved]), size)
    roles = [each.role for each in placement.instances]
    rows = [k for k, role in enumerate(roles) if role == "prefill"]
    columns = [k for k, role in enumerate(roles) if role == "decode"]
    return flows[np.ix_(rows, columns)]
