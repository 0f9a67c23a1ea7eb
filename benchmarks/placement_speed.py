"""How long one decision of the placer takes, by the size of the fleet."""

import random
import time
from dataclasses import replace

from benchmarks.report import percentile, print_table, spread
from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.topology import Topology
from pdserve.config import RouterConfig
from pdserve.kv.layout import KvLayout
from pdserve.latency.profile import read_profile
from pdserve.rpc.v1 import types_pb2
from services.router.knowledge import Knowledge
from services.router.placement.block_names import BlockChain
from services.router.placement.least_load import LeastLoad
from services.router.placement.predictive import Predictive
from services.router.placement.ranked import RankedPlacer
from services.router.placer import Objectives, Placement, PlacementRequest, Placer
from services.router.view import Candidate, FleetView, Limits, Load, Work

LAYOUT = KvLayout("fingerprint", "float16", 40, 40, 128, 16)
COST = read_profile("opt-13b-a100-80g-distserve").instance(1, 1)
PROMPT_TOKENS = 2000
DECISIONS = 300
# Candidates that have changed since the decision before: each has just reported.
CHANGED = 20


async def run(repeats: int) -> None:
    """Prints microseconds a decision, of the predictive placer and of the one by load."""
    rows = []
    for count in (2, 25, 50, 100, 200, 400):
        rounds = [_decisions(count) for _ in range(repeats)]
        predictive = [[each * 1e6 for each in seconds] for seconds, _ in rounds]
        by_load = [[each * 1e6 for each in seconds] for _, seconds in rounds]
        rows.append(
            (
                str(count),
                spread([percentile(each, 0.5) for each in predictive], digits=0),
                spread([percentile(each, 0.99) for each in predictive], digits=0),
                spread([percentile(each, 0.5) for each in by_load], digits=0),
            )
        )
    print_table(
        f"One decision, µs of CPU; prompt of {PROMPT_TOKENS} tokens, {CHANGED} reports in between",
        ("instances a phase", "predictive p50", "predictive p99", "least load p50"),
        rows,
    )


def _decisions(count: int) -> tuple[list[float], list[float]]:
    """Seconds of each decision of the two placers, on the same fleets."""
    lot = random.Random(1)
    knowledge = Knowledge(RouterConfig())
    prefill = [_candidate(knowledge, Role.PREFILL, number, lot) for number in range(count)]
    decode = [_candidate(knowledge, Role.DECODE, number, lot) for number in range(count)]
    prompt = [lot.randrange(50_000) for _ in range(PROMPT_TOKENS)]
    chain = BlockChain()
    names = chain.names(prompt, LAYOUT)
    for candidate in lot.sample(prefill, max(1, count // 4)):
        held = names[: lot.randrange(1, len(names))]
        changes = types_pb2.CacheChanges(reset=True, added=held)
        knowledge.cached(Role.PREFILL, candidate.incarnation, changes)
    placer = Predictive(knowledge, frozenset, lot)
    request = PlacementRequest(
        PROMPT_TOKENS,
        PROMPT_TOKENS + 200,
        objectives=Objectives(0.5, 0.1),
        block_names=lambda layout: chain.names(prompt, layout),
    )
    least_load = RankedPlacer(LeastLoad(), colocated=False)
    predictive_s, by_load_s = [], []
    for _ in range(DECISIONS):
        for side in (prefill, decode):
            for _ in range(min(CHANGED, count)):
                index = lot.randrange(count)
                side[index] = replace(side[index], reported_at=time.monotonic())
        view = FleetView(tuple(prefill), tuple(decode))
        predictive_s.append(_time(placer, request, view))
        by_load_s.append(_time(least_load, request, view))
    return predictive_s, by_load_s


def _time(placer: Placer, request: PlacementRequest, view: FleetView) -> float:
    # CPU time: what a neighbour on the machine does is not the placer's.
    began = time.thread_time()
    answer = placer.place(request, view)
    seconds = time.thread_time() - began
    assert isinstance(answer, Placement)
    return seconds


def _candidate(knowledge: Knowledge, role: Role, number: int, lot: random.Random) -> Candidate:
    place = Topology(node=f"node-{number // 8}", rack=f"rack-{number // 32}")
    name = f"{role}-{number}"
    knowledge.join(InstanceAddress(role, f"127.0.0.1:{number + 1}", name, place), name)
    tokens = lot.randrange(8000)
    works = (Work(), Work(tokens, tokens**1.5), Work())
    decoding = lot.randrange(100)
    load = Load(
        decoding, decoding * 500, decoding, 0, 100_000, 0.1 if decoding else 0.0, reported=works
    )
    limits = Limits(2048, 256, 6)
    return Candidate(name, name, LAYOUT, 4096, load, time.monotonic(), limits, COST)
