"""The predictive placer, from plain data: where a request goes, and what is said of it."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from fleet_of import COST, LAYOUT, NOW, Members, life
from hypothesis import given
from hypothesis import strategies as st

from pdserve.cluster.topology import Topology
from pdserve.latency.cost import decode_s, prefill_s
from pdserve.rpc.v1 import types_pb2
from services.router.placement.predictive import Predictive
from services.router.placer import (
    Exclusion,
    Objectives,
    Placement,
    PlacementRequest,
    Refusal,
    Rung,
)
from services.router.view import Limits, Work

PROMPT = PlacementRequest(tokens=1000, total_tokens=1101)


def place(members: Members, request=PROMPT, *, open_pairs=(), now=NOW, seed=1):
    """The placer's answer."""
    pairs = frozenset((life(p), life(d)) for p, d in open_pairs)
    placer = Predictive(members.knowledge, lambda: pairs, random.Random(seed), lambda: now)
    return placer.place(request, members.view)


def names(answer: Placement | Refusal) -> tuple[str, ...]:
    assert isinstance(answer, Placement), answer.reason
    assert (answer.rung is Rung.LOCAL) == (answer.prefill is None)
    return tuple(each.name for each in (answer.prefill, answer.decode) if each)


def wanting(ttft_s=None, tpot_s=None, *, hard=False, **fields) -> PlacementRequest:
    return replace(PROMPT, objectives=Objectives(ttft_s, tpot_s, hard), **fields)


def two_and_two() -> Members:
    members = Members()
    for name in ("p", "q"):
        members.add_prefill(name)
    for name in ("d", "e"):
        members.add_decode(name)
    return members


def test_equal_instances_share_the_requests() -> None:
    members = two_and_two()
    placed = Counter(names(place(members, seed=seed)) for seed in range(40))
    assert len(placed) == 4


def test_prefill_goes_where_the_first_token_comes_first() -> None:
    members = Members()
    members.add_prefill("busy", tokens=5000)
    members.add_prefill("slow", cost=replace(COST, prefill=replace(COST.prefill, base_s=0.2)))
    members.add_prefill("p", tokens=500)
    members.add_decode("d")
    assert names(place(members)) == ("p", "d")


def test_reported_work_is_done_while_no_report_comes() -> None:
    members = Members()
    members.add_prefill("p", tokens=9000, reported_at=NOW - 0.9)
    members.add_prefill("q", tokens=2000)
    members.add_decode("d")
    assert names(place(members)) == ("p", "d")


def test_only_work_that_goes_first_is_waited_for() -> None:
    members = Members()
    members.add_prefill("p", reported=(Work(), Work(), Work(9000, 0)))
    members.add_prefill("q", reported=(Work(), Work(1000, 0), Work()))
    members.add_decode("d")
    assert names(place(members)) == ("p", "d")
    assert names(place(members, replace(PROMPT, priority=types_pb2.PRIORITY_LOW))) == ("q", "d")


def test_what_was_sent_since_the_report_counts() -> None:
    members = Members()
    members.add_prefill("p", dispatched=(Work(), Work(5000, 0), Work()))
    members.add_prefill("q", tokens=1000)
    members.add_decode("d")
    assert names(place(members)) == ("q", "d")


def test_a_slow_link_is_avoided() -> None:
    members = two_and_two()
    for source, target in (("p", "d"), ("q", "d"), ("p", "e")):
        members.link(source, target, 1e9)
    members.link("q", "e", 1e6)
    members.prefill[0] = replace(members.prefill[0], cost=None)
    placed = {names(place(members, seed=seed)) for seed in range(30)}
    assert ("q", "e") not in placed
    assert len(placed) > 1


def test_until_it_is_measured_a_near_pair_is_faster() -> None:
    members = Members(node_bytes_per_s=1e9, far_bytes_per_s=1e6)
    members.add_prefill("p", place=Topology(node="a"))
    members.add_decode("far", place=Topology(node="b"))
    members.add_decode("near", place=Topology(node="a"))
    assert names(place(members)) == ("p", "near")


def test_bytes_under_way_slow_a_link_down() -> None:
    members = two_and_two()
    for source in "pq":
        for target in "de":
            members.link(source, target, 1e7)
    with (
        members.knowledge.links.in_flight(life("p"), life("d"), 1e8),
        members.knowledge.links.in_flight(life("q"), life("d"), 1e8),
    ):
        assert {names(place(members, seed=seed))[1] for seed in range(20)} == {"e"}


def test_full_decode_instances_make_wait() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("full", free=0, context=1000, decoding=1)
    members.add_decode("seats", decoding=2, limits=Limits(batch_seqs=2))
    members.add_decode("d", decoding=20, context=20_000)
    assert names(place(members)) == ("p", "d")


def cached_prompt(members: Members, holder: int, blocks: int) -> PlacementRequest:
    """A request of whose prompt a prefill instance has so many blocks."""
    chain = list(range(100, 100 + PROMPT.tokens // LAYOUT.block_size))
    members.holds(members.prefill[holder], chain[:blocks])
    return replace(wanting(ttft_s=1.0), block_names=lambda _: chain)


def test_a_prefix_hit_is_taken_while_the_objectives_allow() -> None:
    members = Members()
    members.add_prefill("p", tokens=4000)
    members.add_prefill("q")
    members.add_decode("d")
    request = cached_prompt(members, 0, 40)
    answer = place(members, request)
    assert names(answer) == ("p", "d")
    assert answer.scores[0].cached_tokens == 640
    assert answer.scores[0].compute_s == pytest.approx(0.01 + 360e-4)
    hasty = replace(request, objectives=Objectives(ttft_s=0.2))
    assert names(place(members, hasty)) == ("q", "d")


def test_a_prefix_hit_shortens_the_time_of_a_request_without_objectives() -> None:
    members = two_and_two()
    request = replace(cached_prompt(members, 1, 60), objectives=Objectives())
    assert names(place(members, request))[0] == "q"


def test_the_last_token_is_computed_although_it_is_cached() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("d")
    chain = list(range(64))
    members.holds(members.prefill[0], chain)
    request = PlacementRequest(1024, 1100, block_names=lambda _: chain)
    assert place(members, request).scores[0].cached_tokens == 1023


def test_decode_is_packed_up_to_its_limit() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("empty", decoding=0, context=0)
    members.add_decode("packed", decoding=20, context=20_000)  # a step of 33 ms with one more
    members.add_decode("fuller", decoding=60, context=60_000)  # 77 ms
    assert names(place(members, wanting(tpot_s=0.1))) == ("p", "fuller")
    assert names(place(members, wanting(tpot_s=0.08))) == ("p", "packed")
    assert names(place(members, wanting(tpot_s=0.02))) == ("p", "empty")
    # Nobody to keep a promise to: the fastest.
    assert names(place(members)) == ("p", "empty")


def test_the_promises_of_those_that_run_are_kept() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("strict", decoding=20, context=20_000, tpot_limit_s=0.03)
    members.add_decode("loose", decoding=30, context=30_000, tpot_limit_s=0.1)
    assert names(place(members, wanting(tpot_s=0.2))) == ("p", "loose")


def test_a_request_without_objectives_keeps_the_promises_of_others_and_is_never_refused() -> None:
    members = Members()
    members.add_prefill("p")
    # The sooner end is on the one whose requests would miss their TPOT.
    members.add_decode("strict", decoding=10, context=10_000, tpot_limit_s=0.015)
    members.add_decode("loose", decoding=30, context=30_000)
    for hard in (False, True):
        assert names(place(members, wanting(hard=hard))) == ("p", "loose")
    alone = Members()
    alone.add_prefill("p")
    alone.add_decode("strict", decoding=20, context=10_000, tpot_limit_s=0.015)
    assert names(place(alone, wanting(hard=True))) == ("p", "strict")


def test_the_least_violation_wins_where_nobody_meets_the_objectives() -> None:
    members = Members()
    members.add_prefill("p", tokens=9000)
    members.add_prefill("q", tokens=4000)
    members.add_decode("d", decoding=2, context=900, limits=Limits(batch_tokens=512))
    answer = place(members, wanting(ttft_s=0.1, tpot_s=0.02))
    assert names(answer) == ("q", "d")
    assert answer.scores[0].violation == pytest.approx((0.51 + 0.01) / 0.1 + 0.0 - 1, rel=0.5)
    assert "misses the objectives" in answer.reason


def test_hard_objectives_that_cannot_be_met_are_refused_with_a_time() -> None:
    members = Members()
    members.add_prefill("p", tokens=9000)
    members.add_decode("d", decoding=2, context=900)
    answer = place(members, wanting(ttft_s=0.5, tpot_s=0.05, hard=True))
    assert isinstance(answer, Refusal)
    assert answer.overloaded
    assert answer.retry_after_s == pytest.approx(0.91 + 0.11 - 0.5)
    assert "TTFT is 1.02 s, 0.5 s is left" in answer.reason
    assert answer.field == "slo.ttft_ms"
    assert names(place(members, wanting(ttft_s=0.5, tpot_s=0.05))) == ("p", "d")
    assert names(place(members, wanting(ttft_s=2.0, tpot_s=0.05, hard=True))) == ("p", "d")


def test_a_tpot_that_cannot_be_met_is_refused_too() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("d", decoding=99, context=99_000)
    answer = place(members, wanting(tpot_s=0.05, hard=True))
    assert isinstance(answer, Refusal)
    assert answer.field == "slo.tpot_ms"
    assert answer.retry_after_s > 0


def test_where_decode_is_alone_a_hard_objective_is_refused_too() -> None:
    members = Members()
    members.add_decode("d", decoding=2, context=900, waiting=50_000)
    answer = place(members, wanting(ttft_s=0.5, hard=True))
    assert isinstance(answer, Refusal)
    assert answer.overloaded
    assert answer.field == "slo.ttft_ms"
    assert answer.retry_after_s == pytest.approx(answer.scores[0].ttft_s - 0.5)
    assert "no prefill instance" in answer.reason
    assert names(place(members, wanting(ttft_s=0.5))) == ("d",)
    assert names(place(members, wanting(ttft_s=60.0, hard=True))) == ("d",)


def test_decode_that_has_never_computed_a_prompt_is_no_rival_of_prefill() -> None:
    never = replace(COST, prefill=replace(COST.prefill, base_s=math.inf))
    members = Members()
    members.add_prefill("p", tokens=90_000)
    members.add_decode("d", decoding=0, context=0, cost=never)
    assert names(place(members, wanting(ttft_s=0.5))) == ("p", "d")
    members.prefill.clear()
    answer = place(members, wanting(ttft_s=0.001, hard=True))
    assert names(answer) == ("d",)
    assert math.isfinite(answer.scores[0].ttft_s)


def test_nothing_is_refused_by_a_guess() -> None:
    members = Members()
    members.add_prefill("p", tokens=90_000, cost=None)
    members.add_decode("d", cost=None)
    assert names(place(members, wanting(ttft_s=0.1, hard=True))) == ("p", "d")


def test_an_instance_that_has_not_told_its_cost_is_taken_to_be_like_the_others() -> None:
    members = Members()
    members.add_prefill("p", tokens=3000)
    members.add_prefill("new", cost=None)
    members.add_decode("d")
    answer = place(members)
    assert names(answer) == ("new", "d")
    assert answer.scores[0].ttft_s == pytest.approx(0.11)


def test_a_prompt_that_decode_has_cached_is_computed_there() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("d", decoding=1, context=500)
    chain = list(range(62))
    members.holds(members.decode[0], chain)
    members.link("p", "d", 1e6)
    request = replace(PROMPT, block_names=lambda _: chain)
    answer = place(members, request)
    assert names(answer) == ("d",)
    assert "costs decode less time" in answer.reason


def test_decode_computes_no_prompt_while_others_would_miss_their_tpot() -> None:
    members = Members()
    members.add_prefill("p", tokens=50_000)
    members.add_decode("d", decoding=5, context=5000, tpot_limit_s=0.05)
    assert names(place(members, wanting(ttft_s=0.3))) == ("p", "d")
    members.decode.clear()
    members.add_decode("e", decoding=0, context=0)
    assert names(place(members, wanting(ttft_s=0.3))) == ("e",)


def test_pairs_that_fail_are_avoided() -> None:
    members = two_and_two()
    pairs = [("p", "d"), ("p", "e"), ("q", "e")]
    assert {names(place(members, open_pairs=pairs, seed=seed)) for seed in range(9)} == {("q", "d")}
    answer = place(members, open_pairs=[*pairs, ("q", "d")])
    assert len(names(answer)) == 1
    assert "hand-offs fail" in answer.reason


def test_only_compatible_layouts_pair() -> None:
    members = Members()
    other = replace(LAYOUT, fingerprint="other")
    members.add_prefill("p", layout=other)
    members.add_prefill("q", tokens=90_000)
    members.add_decode("d")
    assert names(place(members)) == ("q", "d")
    del members.prefill[1]
    answer = place(members)
    assert names(answer) == ("d",)
    assert "fingerprint" in answer.reason


def test_what_failed_the_request_is_the_last_choice() -> None:
    members = two_and_two()
    failed = {life("p"): Exclusion(NOW - 1), life("e"): Exclusion(NOW - 1)}
    request = replace(PROMPT, exclusions=failed)
    assert {names(place(members, request, seed=seed)) for seed in range(9)} == {("q", "d")}
    del members.prefill[1], members.decode[0]
    assert names(place(members, request)) == ("p", "e")
    dead = {life("p"): Exclusion(NOW + 1)}
    answer = place(members, replace(PROMPT, exclusions=dead))
    assert names(answer) == ("e",)
    assert "no prefill instance can take it" in answer.reason


def test_overloaded_prefill_is_no_reason_to_burden_decode() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_decode("d")
    full = {life("p"): Exclusion(float("inf"), overloaded=True)}
    answer = place(members, replace(PROMPT, exclusions=full))
    assert isinstance(answer, Refusal)
    assert answer.overloaded


def test_without_decode_there_is_no_placement() -> None:
    members = Members()
    members.add_prefill("p")
    answer = place(members)
    assert isinstance(answer, Refusal)
    assert "decode-9 is down" in answer.reason


def test_too_long_prompts_go_where_they_fit() -> None:
    members = Members()
    members.add_prefill("short", max_model_len=1000)
    members.add_prefill("p", tokens=500, max_model_len=1001)
    members.add_decode("small", max_model_len=1100)
    members.add_decode("d", max_model_len=1101, decoding=50, context=50_000)
    assert names(place(members)) == ("p", "d")


def test_the_alternatives_and_what_they_lack_are_told() -> None:
    members = Members()
    members.add_prefill("p")
    members.add_prefill("late", tokens=9000)
    members.add_decode("d")
    answer = place(members, wanting(ttft_s=0.5))
    assert answer.considered == 2
    chosen, other = answer.scores
    assert (chosen.prefill, chosen.verdict) == ("p", "chosen")
    assert other.prefill == "late"
    assert other.verdict == "misses the objectives by 104%"


@given(
    tokens=st.integers(1, 5000),
    cached=st.integers(0, 100),
    queued=st.integers(0, 20_000),
    decoding=st.integers(0, 200),
    context=st.integers(0, 100_000),
    speed=st.floats(1e6, 1e11),
    base=st.floats(0, 0.1),
    square=st.floats(0, 1e-8),
)
def test_expectations_are_those_of_the_planners_formulas(
    tokens, cached, queued, decoding, context, speed, base, square
) -> None:
    """Of the only pair, computed one by one."""
    members = Members()
    cost = replace(COST, prefill=replace(COST.prefill, base_s=base, per_square_s=square))
    squares = queued**1.5
    members.add_prefill("p", cost=cost, reported=(Work(), Work(queued, squares), Work()))
    members.add_decode("d", decoding, context, cost=cost, tpot_limit_s=1e-9)  # no room for prompts
    members.link("p", "d", speed)
    chain = list(range(tokens // 16))
    members.holds(members.prefill[0], chain[:cached])
    request = PlacementRequest(tokens, tokens + 101, block_names=lambda _: chain)
    answer = place(members, request, seed=0)
    if answer.rung is Rung.LOCAL:
        assert decoding == 0
        return
    past = min(16 * min(cached, len(chain)), tokens - 1)
    queue_s = prefill_s(cost, queued, squares) if queued else 0.0
    compute_s = prefill_s(cost, tokens - past, tokens**2 - past**2)
    bandwidth = members.knowledge.links.states(1)[0].bytes_per_s
    step_s = decode_s(cost, decoding + 1, context + tokens)
    score = answer.scores[0]
    assert score.queue_s == pytest.approx(queue_s)
    assert score.compute_s == pytest.approx(compute_s)
    assert score.bandwidth == pytest.approx(bandwidth, rel=1e-3)
    assert score.handoff_s == pytest.approx(tokens * 1024 / bandwidth, rel=1e-3)
    assert score.tpot_s == pytest.approx(step_s + score.handoff_s / 100)


def test_a_refusal_tells_what_was_weighed() -> None:
    members = Members()
    members.add_prefill("p", tokens=9000)
    members.add_prefill("late", tokens=50_000)
    members.add_decode("d", decoding=2, context=900)
    answer = place(members, wanting(ttft_s=0.5, hard=True))
    assert isinstance(answer, Refusal)
    assert [each.prefill for each in answer.scores] == ["p", "late"]


def test_an_output_goes_on_with_the_model_that_began_it() -> None:
    members = Members()
    new = replace(LAYOUT, fingerprint="new")
    members.add_prefill("p", tokens=9000)
    members.add_prefill("new p", layout=new)
    members.add_decode("d", decoding=90, context=90_000)
    members.add_decode("new d", layout=new)
    request = replace(PROMPT, fingerprint=LAYOUT.fingerprint)
    assert names(place(members, request)) == ("p", "d")
    assert names(place(members)) == ("new p", "new d")
    del members.prefill[0], members.decode[0]
    assert names(place(members, request)) == ("new p", "new d")
