"""DistServe's headline (OSDI 2024, section 6) in the planner: goodput per GPU with and without it.

Everything is simulated on the costs that DistServe's authors fitted to their own engine and to
vLLM, with the batching of pdserve's services and of vLLM, both within the KV memory that there is.
Two questions: what the placements that they deployed reach, and what a search finds.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.report import console, print_table
from pdserve.latency.hardware import find_gpu
from pdserve.latency.profile import Profile, read_profile
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.evaluation import Bench, deployment_of
from pdserve.planner.goodput import Bisection
from pdserve.planner.placement import Placer
from pdserve.planner.plan import Layout, Placement, Role, Shape
from pdserve.planner.problem import Problem
from pdserve.planner.search import search
from pdserve.planner.simulator.result import Result
from pdserve.planner.simulator.simulation import simulate
from pdserve.planner.slo import Slo
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.workload import Floats, Ints, Workload

REQUESTS = 10_000
# Short runs differ more.
SHORT_RUNS = 5
# Section 6.1: 4 nodes of 8 A100-80GB on NVLink, 25 Gb/s between them.
NODES, NODE_GPUS, NETWORK_BYTES_PER_S = 4, 8, 25e9 / 8
# OPT's context. The authors' script drops ShareGPT and HumanEval samples that exceed it, and cuts
# LongBench prompts to a random length near it (0-prepare-dataset.py in their repository).
CONTEXT = 2048
CUT_LOW, CUT_HIGH, CUT_WITH_OUTPUT = 1900, 2048, 2040
# In so many steps the means before cutting come to be those that leave the wanted ones.
_FITTING_STEPS = 40
# So many times the requests are drawn; at most about half of them are dropped.
_SPARE = 3


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lognormal lengths that fit OPT's context, with these means of what is left.

    `cut` says what becomes of a request that is too long: a shorter prompt, or nothing.
    """

    prompt_mean: float
    prompt_sigma: float
    output_mean: float
    output_sigma: float
    cut: bool = False

    def draw(self, rng: np.random.Generator, requests: int) -> tuple[Ints, Ints]:
        """Prompt and output tokens, `[requests]` each, at least 1."""
        normal = rng.standard_normal((2, _SPARE * requests))
        limit: Ints = rng.integers(CUT_LOW, CUT_HIGH, (_SPARE * requests,), endpoint=True)
        prompt_mean, output_mean = self.prompt_mean, self.output_mean
        for _ in range(_FITTING_STEPS):
            prompts, outputs = self._fitting(normal, limit, prompt_mean, output_mean)
            prompt_mean *= math.sqrt(self.prompt_mean / float(prompts.mean()))
            output_mean *= math.sqrt(self.output_mean / float(outputs.mean()))
        return prompts[:requests], outputs[:requests]

    def _fitting(
        self, normal: Floats, limit: Ints, prompt_mean: float, output_mean: float
    ) -> tuple[Ints, Ints]:
        prompts = _lognormal(normal[0], prompt_mean, self.prompt_sigma)
        outputs = _lognormal(normal[1], output_mean, self.output_sigma)
        if self.cut:
            outputs = np.minimum(outputs, CUT_LOW)
            return np.minimum(prompts, np.minimum(limit, CUT_WITH_OUTPUT - outputs)), outputs
        kept = prompts + outputs < CONTEXT
        return prompts[kept], outputs[kept]


def _lognormal(normal: Floats, mean: float, sigma: float) -> Ints:
    drawn = np.exp(math.log(mean) - sigma * sigma / 2 + sigma * normal)
    return np.maximum(1, np.rint(np.minimum(drawn, 1e6))).astype(np.int64)


# The means are those of figure 7. Its spreads are not printed. ShareGPT's sigmas are those of the
# first 219 requests that the authors' repository has the lengths of (vllm-400-4.exp); the other two
# are assumed.
SHAREGPT = Lengths(755.5, 1.2, 200.3, 1.6)
HUMANEVAL = Lengths(171.3, 0.5, 98.2, 0.75)
LONGBENCH = Lengths(1738.3, 1.0, 90.7, 1.5, cut=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the paper's table 1, what was deployed for it, and what is claimed of it.

    `prefill` and `decode` are TP and PP of table 3, `vllm_tp` that of section 6.1. The claims are
    DistServe's rate and SLO scale as multiples of vLLM's, the latter at `scale_rate` requests per
    second and GPU; a run had `run_requests` requests a GPU (both: ae-scripts/e2e/_plot.py in the
    authors' repository).
    """

    name: str
    profile: str
    slo: Slo
    lengths: Lengths
    vllm_tp: int
    prefill: tuple[int, int]
    decode: tuple[int, int]
    scale_rate: float
    run_requests: int
    rate_claim: str
    scale_claim: str


ROWS = (
    Row(
        "chatbot, OPT-13B, ShareGPT",
        "opt-13b-a100-80g",
        Slo(0.25, 0.1),
        SHAREGPT,
        vllm_tp=1,
        prefill=(2, 1),
        decode=(1, 1),
        scale_rate=1.5,
        run_requests=100,
        rate_claim="2.0-4.6x",
        scale_claim="1.8-3.2x",
    ),
    Row(
        "chatbot, OPT-66B, ShareGPT",
        "opt-66b-a100-80g",
        Slo(2.5, 0.15),
        SHAREGPT,
        vllm_tp=4,
        prefill=(4, 1),
        decode=(2, 2),
        scale_rate=0.25,
        run_requests=25,
        rate_claim="2.0-4.6x",
        scale_claim="1.8-3.2x",
    ),
    Row(
        "code, OPT-66B, HumanEval",
        "opt-66b-a100-80g",
        Slo(0.125, 0.2),
        HUMANEVAL,
        vllm_tp=4,
        prefill=(4, 1),
        decode=(2, 2),
        scale_rate=0.875,
        run_requests=50,
        rate_claim="5.7x",
        scale_claim="1.4x",
    ),
    Row(
        "summaries, OPT-66B, LongBench",
        "opt-66b-a100-80g",
        Slo(15.0, 0.15),
        LONGBENCH,
        vllm_tp=4,
        prefill=(4, 1),
        decode=(2, 2),
        scale_rate=0.375,
        run_requests=25,
        rate_claim="4.3x",
        scale_claim="12.6x",
    ),
)
# Table 2: attainment in real runs by rate per GPU, vLLM and DistServe. It names no model; runs of
# 100 s at these rates are in the authors' repository for OPT-13B on ShareGPT.
TABLE_2_S = 100.0
TABLE_2 = {
    1.0: (97.0, 100.0),
    1.5: (65.5, 100.0),
    2.0: (52.8, 99.3),
    2.5: (44.9, 87.3),
    3.0: (36.7, 83.0),
    3.5: (27.8, 77.3),
    4.0: (23.6, 70.0),
}


async def run(repeats: int) -> None:
    """Prints what the paper deployed, over `repeats` drawn workloads, and what a search finds."""
    console.print(
        f"simulated, Poisson arrivals; A100-SXM4-80GB, {NODES} nodes of "
        f"{NODE_GPUS}, {NETWORK_BYTES_PER_S * 8 / 1e9:g} Gb/s; attainment 90 %"
    )
    _print_table_2(ROWS[0], repeats)
    _print_deployed(
        "runs as short as the paper's",
        lambda row, bench: row.run_requests * bench.placement.gpus,
        SHORT_RUNS * repeats,
    )
    _print_deployed(f"runs of {REQUESTS} requests", lambda _row, _bench: REQUESTS, repeats)
    _print_searched()


def _print_table_2(row: Row, repeats: int) -> None:
    """Attainment in runs as short as those of the paper."""
    seeds = range(SHORT_RUNS * repeats)
    vllm = [_vllm_as_deployed(row, seed) for seed in seeds]
    distserve = [_distserve_as_deployed(row, seed) for seed in seeds]

    def attained(bench: Bench, rate: float) -> float:
        slo, requests = bench.problem.slo, round(rate * bench.placement.gpus * TABLE_2_S)
        return 100 * _simulated(bench, rate, requests).attainment(slo)

    rows = [
        (
            f"{rate:g}",
            f"{real_vllm:.1f}",
            _spread([attained(bench, rate) for bench in vllm], 1),
            f"{real_distserve:.1f}",
            _spread([attained(bench, rate) for bench in distserve], 1),
        )
        for rate, (real_vllm, real_distserve) in TABLE_2.items()
    ]
    print_table(
        f"Table 2: attainment, %, of OPT-13B on ShareGPT in {TABLE_2_S:g} s of arrivals",
        ("rate per GPU", "vLLM, paper", "here", "DistServe, paper", "here"),
        rows,
    )


def _print_deployed(title: str, requests: Callable[[Row, Bench], int], seeds: int) -> None:
    """Goodput and SLO scale of what the authors deployed, in runs of so many requests."""
    rows = []
    for row in ROWS:
        rates: list[list[float]] = [[], [], []]
        tighter = []
        for seed in range(seeds):
            vllm, distserve = _vllm_as_deployed(row, seed), _distserve_as_deployed(row, seed)
            for seen, bench in zip(
                rates, (vllm, _colocated_as_deployed(row, seed), distserve), strict=True
            ):
                seen.append(_goodput_per_gpu(bench, requests(row, bench)))
            scales = [
                _slo_scale(bench, row.scale_rate, requests(row, bench))
                for bench in (vllm, distserve)
            ]
            tighter.append(scales[0] / scales[1])
        vllm_rate, _, distserve_rate = (statistics.median(seen) for seen in rates)
        rows.append(
            (
                row.name,
                *(_spread(seen, 2) for seen in rates),
                f"{distserve_rate / vllm_rate:.1f}x" if vllm_rate else "-",
                row.rate_claim,
                f"{statistics.median(tighter):.1f}x",
                row.scale_claim,
            )
        )
    print_table(
        f"As deployed, {title}: goodput per GPU, and how much tighter an SLO scale DistServe meets",
        ("", "vLLM", "colocated", "DistServe", "to vLLM", "paper", "tighter", "paper"),
        rows,
    )


def _print_searched() -> None:
    """What a search finds on the whole cluster, for both engines' costs."""
    for row in ROWS:
        vllm, distserve = _problem(row, "vllm", 0), _problem(row, "distserve", 0)
        plans = [("vLLM, TP as deployed", _vllm_on_cluster(row))]
        plans += [
            (f"vLLM, {found.layout}", Bench(vllm, found.placement))
            for found in search(vllm).found
            if found.layout == "colocated-whole"
        ]
        plans += [
            (f"DistServe, {found.layout}", Bench(distserve, found.placement))
            for found in search(distserve).found
        ]
        rates = [_goodput_per_gpu(bench) for _, bench in plans]
        at = max(rates[:2])  # vLLM's best
        print_table(
            f"Searched, {row.name}; SLO scale at {at:.3g} requests/s and GPU",
            ("costs, layout", "GPUs", "per GPU", "to vLLM", "SLO scale", "instances"),
            [
                (
                    name,
                    str(bench.placement.gpus),
                    f"{rate:.3g}",
                    f"{rate / at:.2f}",
                    f"{_slo_scale(bench, at):.2f}",
                    _in_words(bench.placement),
                )
                for (name, bench), rate in zip(plans, rates, strict=True)
            ],
        )


def _problem(row: Row, engine: str, seed: int, nodes: int = NODES) -> Problem:
    return Problem(
        {_source(row, engine).gpu: _source(row, engine)},
        _cluster(row, nodes),
        _workload(row, seed),
        row.slo,
    )


def _source(row: Row, engine: str) -> Profile:
    """The engine's costs, batched as pdserve's services do, or as vLLM where they are colocated.

    The batching of the authors' own simulator knows no limit of memory.
    """
    return replace(read_profile(f"{row.profile}-{engine}"), policy="pdserve")


def _cluster(row: Row, nodes: int) -> Cluster:
    gpu = find_gpu(_source(row, "vllm").gpu)
    return Cluster([Node(f"node-{k}", gpu, NODE_GPUS, NETWORK_BYTES_PER_S) for k in range(nodes)])


def _workload(row: Row, seed: int) -> Workload:
    return draw_workload(WorkloadSpec(REQUESTS, row.lengths, seed=seed))


def _vllm_as_deployed(row: Row, seed: int) -> Bench:
    """One instance of vLLM with the TP that the paper gives it."""
    return _bench(_problem(row, "vllm", seed, 1), "colocated-whole", [("both", row.vllm_tp, 1, 1)])


def _colocated_as_deployed(row: Row, seed: int) -> Bench:
    """The same with the costs of DistServe's engine."""
    problem = _problem(row, "distserve", seed, 1)
    return _bench(problem, "colocated-whole", [("both", row.vllm_tp, 1, 1)])


def _vllm_on_cluster(row: Row) -> Bench:
    """As many instances of vLLM with that TP as the cluster holds."""
    problem = _problem(row, "vllm", 0)
    count = problem.cluster.gpus // row.vllm_tp
    return _bench(problem, "colocated-whole", [("both", row.vllm_tp, 1, count)])


def _distserve_as_deployed(row: Row, seed: int) -> Bench:
    """One prefill and one decode instance, as in table 3, on one node."""
    phases: list[tuple[Role, int, int, int]] = [
        ("prefill", *row.prefill, 1),
        ("decode", *row.decode, 1),
    ]
    return _bench(_problem(row, "distserve", seed, 1), "apart", phases)


def _bench(
    problem: Problem, layout: Layout, instances: Sequence[tuple[Role, int, int, int]]
) -> Bench:
    """So many instances of each role, TP and PP on the problem's cluster."""
    (kind,) = problem.cluster.kinds
    shapes = []
    for role, tp, pp, count in instances:
        budget = problem.batching(kind).budgets(role, layout, problem.cost(kind, tp, pp))[0]
        shapes.append((Shape(role, kind, tp, pp, budget, problem.max_batch_seqs), count))
    placer = Placer(problem.cluster)
    placer.spread(shapes)
    return Bench(problem, placer.placement(layout))


def _simulated(bench: Bench, rate_per_gpu: float, requests: int) -> Result:
    problem = bench.problem
    load = problem.sample(requests).at_rate(rate_per_gpu * bench.placement.gpus)
    deployment = deployment_of(bench.placement, problem.sources, bench.links, problem.mean_output)
    return simulate(deployment, load, problem.slo)


def _goodput_per_gpu(bench: Bench, requests: int = REQUESTS) -> float:
    slo = bench.problem.slo

    def meets(rate_per_gpu: float) -> bool:
        return _simulated(bench, rate_per_gpu, requests).meets(slo)

    return Bisection().highest(meets, guess=1.0)


def _slo_scale(bench: Bench, rate_per_gpu: float, requests: int = REQUESTS) -> float:
    """The factor by which both SLOs are multiplied so that the target share just meets them."""
    slo, seen = bench.problem.slo, _simulated(bench, rate_per_gpu, requests)
    needed = np.fmax(seen.ttft_s / slo.ttft_s, seen.tpot_s / slo.tpot_s)
    return float(np.quantile(needed, slo.attainment, method="inverted_cdf"))


def _in_words(placement: Placement) -> str:
    names = {"prefill": "prefill ", "decode": "decode ", "both": ""}
    return ", ".join(
        f"{count} {names[shape.role]}TP{shape.tp} PP{shape.pp}"
        for shape, count in sorted(placement.shapes().items(), key=lambda each: str(each[0]))
    )


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
