"""Placement by bandwidth: one of two decode instances is behind a link of a tenth of the speed.

Services, transfers and router are real; the engines only take time, and the links are throttled
where the transfer hands bytes over.
"""

import statistics
from dataclasses import replace

from benchmarks.paced_cluster import INSTANCE, Answer, paced_cluster, replay, router
from benchmarks.report import percentile, print_table, spread
from pdserve.cli.local_cluster import ClusterSpec
from pdserve.rpc.v1 import types_pb2
from pdserve.workload.arrivals import PoissonArrivals
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import FixedLengths, IndependentLengths, UniformLengths
from tests.doubles.shaped_instance import Shape

PLACERS = ("predictive", "least_load", "round_robin")
REQUESTS, RATE = 120, 6.0
# 2 KiB of KV a token: a prompt of 600 tokens takes 40 ms over the fast link and 400 over the slow.
FAST = Shape(link_bytes_per_s=30e6, step_s=0.01, prompt_token_s=1e-4, head_dim=64)
SLOW = replace(FAST, link_bytes_per_s=3e6)


async def run(repeats: int) -> None:
    """Prints the gap that the hand-off makes, and how many went over the slow link."""
    lengths = IndependentLengths(UniformLengths(200, 1000), FixedLengths(24))
    gaps: dict[str, list[list[float]]] = {placer: [] for placer in PLACERS}
    slow: dict[str, list[float]] = {placer: [] for placer in PLACERS}
    for repeat in range(repeats):
        spec = WorkloadSpec(REQUESTS, lengths, PoissonArrivals(), RATE, seed=repeat)
        workload = draw_workload(spec)
        for placer in PLACERS:
            cluster = ClusterSpec(1, 2, INSTANCE, router(placer))
            async with paced_cluster(cluster, FAST, {"decode-1": SLOW}) as channel:
                answers = await replay(channel, workload, types_pb2.Slo())
            gaps[placer].append([each.first_gap_s * 1e3 for each in answers])
            slow[placer].append(100 * statistics.mean(map(_over_slow_link, answers)))
    rows = [
        (
            placer,
            *(spread([percentile(each, share) for each in gaps[placer]]) for share in (0.5, 0.99)),
            spread(slow[placer], "%", digits=0),
        )
        for placer in PLACERS
    ]
    print_table(
        f"One of two decode instances behind a tenth of the bandwidth: {REQUESTS} requests at "
        f"{RATE:g}/s; medians [range] of {repeats} rounds",
        ("placer", "gap after first token p50, ms", "p99, ms", "over the slow link"),
        rows,
    )


def _over_slow_link(answer: Answer) -> bool:
    last = answer.attempts[-1]
    return last.rung == "remote" and last.decode == "decode-1"
