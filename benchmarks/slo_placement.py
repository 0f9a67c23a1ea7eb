"""Placement and admission by SLO: a bursty load of 1.2 times what the cluster can do.

Services, transfers and router are real; the engines only take time. All requests have the same hard
SLO. Only the predictive placer refuses what would miss it; the other two do not look.
"""

import statistics
from collections.abc import Sequence

from benchmarks.paced_cluster import INSTANCE, Answer, paced_cluster, replay, router
from benchmarks.report import print_table, spread
from pdserve.cli.local_cluster import ClusterSpec
from pdserve.rpc.v1 import types_pb2
from pdserve.workload.arrivals import GammaArrivals
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import FixedLengths, IndependentLengths, LognormalLengths
from pdserve.workload.workload import Workload
from tests.doubles.shaped_instance import Shape

PLACERS = ("predictive", "least_load", "round_robin")
REQUESTS, OVERLOAD, BURSTINESS = 200, 1.2, 2.5
SHAPE = Shape(step_s=0.02, prompt_token_s=5e-4)
PREFILLS, DECODES = 2, 2
TTFT_S, TPOT_S = 1.0, 0.06
SLO = types_pb2.Slo(ttft_ms=TTFT_S * 1e3, tpot_ms=TPOT_S * 1e3, hard=True)


async def run(repeats: int) -> None:
    """Prints attainment of those that were admitted, and goodput, of all that were sent."""
    lengths = IndependentLengths(LognormalLengths(400, 0.7), FixedLengths(24))
    taken: dict[str, list[tuple[float, float, float, float]]] = {placer: [] for placer in PLACERS}
    for repeat in range(repeats):
        spec = WorkloadSpec(REQUESTS, lengths, GammaArrivals(BURSTINESS), 1.0, seed=repeat)
        workload = _at_overload(draw_workload(spec))
        for placer in PLACERS:
            cluster = ClusterSpec(PREFILLS, DECODES, INSTANCE, router(placer))
            async with paced_cluster(cluster, SHAPE, {}) as channel:
                answers = await replay(channel, workload, SLO)
            taken[placer].append(_summary(answers, float(workload.arrival_s[-1])))
    rows = [
        (placer, *(spread(list(column), digits=2) for column in zip(*taken[placer], strict=True)))
        for placer in PLACERS
    ]
    print_table(
        f"{REQUESTS} requests in bursts (CV {BURSTINESS}) at {OVERLOAD} × the capacity of "
        f"{PREFILLS}P + {DECODES}D; SLO {TTFT_S:g} s and {TPOT_S * 1e3:g} ms; "
        f"medians [range] of {repeats} rounds",
        ("placer", "attainment of admitted", "of all", "goodput, requests/s", "refused"),
        rows,
    )


def _at_overload(workload: Workload) -> Workload:
    """The workload at the rate that is too much: prefill is what bounds it."""
    prompt_s = float(workload.prompt_tokens.mean()) * SHAPE.prompt_token_s + SHAPE.step_s
    rate = OVERLOAD * PREFILLS / prompt_s
    present = (len(workload.arrival_s) - 1) / float(workload.arrival_s[-1])
    return Workload(
        workload.name,
        workload.arrival_s * present / rate,
        workload.prompt_tokens,
        workload.output_tokens,
    )


def _summary(answers: Sequence[Answer], seconds: float) -> tuple[float, float, float, float]:
    admitted = [each for each in answers if not each.refusal]
    met = sum(each.ttft_s <= TTFT_S and each.tpot_s <= TPOT_S for each in admitted)
    refused = statistics.mean(bool(each.refusal) for each in answers)
    return met / len(admitted), met / len(answers), met / seconds, refused
