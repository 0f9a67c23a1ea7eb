"""The placers that take turns or draw lots."""

import random
from collections import Counter
from dataclasses import replace

from fleet_of import NOW, Members, life
from router_bench import bench

from pdserve.config import RouterConfig
from pdserve.rpc.v1 import router_pb2
from services.router.placement.least_load import LeastLoad
from services.router.placement.make import make_placer
from services.router.placement.predictive import Predictive
from services.router.placement.random_order import RandomOrder
from services.router.placement.ranked import RankedPlacer
from services.router.placement.round_robin import RoundRobin
from services.router.placer import Exclusion, PlacementRequest, Rung

REQUEST = PlacementRequest(tokens=10, total_tokens=20)


def fleet() -> Members:
    members = Members()
    for number in range(3):
        members.add_prefill(f"p{number}", tokens=1000 * number)
        members.add_decode(f"d{number}", decoding=number)
    return members


def placed(placer, request=REQUEST, times: int = 1):
    view = fleet().view
    answers = [placer.place(request, view) for _ in range(times)]
    return [(each.prefill.name, each.decode.name) for each in answers]


def test_turns_are_taken() -> None:
    placer = RankedPlacer(RoundRobin(), colocated=False)
    assert Counter(placed(placer, times=6)) == {(f"p{n}", f"d{n}"): 2 for n in range(3)}


def test_lots_are_drawn() -> None:
    placer = RankedPlacer(RandomOrder(random.Random(1)), colocated=False)
    pairs = Counter(placed(placer, times=300))
    assert len(pairs) == 9
    assert min(pairs.values()) > 15


def test_whatever_the_ranking_what_failed_comes_last() -> None:
    failed = {life(name): Exclusion(NOW - 1) for name in ("p0", "d0", "d1")}
    request = replace(REQUEST, exclusions=failed)
    for ranking in (RoundRobin(), RandomOrder(random.Random(1))):
        placer = RankedPlacer(ranking, colocated=False)
        pairs = placed(placer, request, times=20)
        assert {decode for _, decode in pairs} == {"d2"}
        assert {prefill for prefill, _ in pairs} == {"p1", "p2"}


def test_pairs_that_fail_are_avoided() -> None:
    members = Members()
    for name in ("p", "q"):
        members.add_prefill(name)
        members.add_decode(f"d of {name}")
    broken = {(life("p"), life("d of p"))}
    placer = RankedPlacer(LeastLoad(), lambda: broken, colocated=False)
    answer = placer.place(REQUEST, members.view)
    assert (answer.prefill.name, answer.decode.name) == ("p", "d of q")
    every = {(life(p), life(f"d of {q}")) for p in "pq" for q in "pq"}
    answer = RankedPlacer(LeastLoad(), lambda: every, colocated=False).place(REQUEST, members.view)
    assert answer.rung is Rung.LOCAL
    assert "hand-offs fail" in answer.reason


def test_the_option_names_the_placer() -> None:
    members = fleet()
    kinds = {
        name: make_placer(RouterConfig(placer=name), members.knowledge, frozenset)
        for name in ("predictive", "least_load", "round_robin", "random")
    }
    assert isinstance(kinds.pop("predictive"), Predictive)
    assert all(isinstance(each, RankedPlacer) for each in kinds.values())
    colocated = make_placer(RouterConfig(colocated=True), members.knowledge, frozenset)
    assert colocated.place(REQUEST, members.view).rung is Rung.LOCAL


async def test_who_asks_whether_the_router_is_ready_takes_nobody_s_turn() -> None:
    async with bench(decode=3, placer="round_robin") as it:
        chosen = []
        for _ in range(6):
            answer = await it.generate()
            chosen.append(answer.finished.attempts[0].decode)
            models = await it.stub.ListModels(router_pb2.ListModelsRequest())
            assert models.models[0].ready
    assert chosen[:3] == chosen[3:]
    assert len(set(chosen)) == 3
