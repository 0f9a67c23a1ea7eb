"""What a placer is told of an instance: its last report, and what was sent since."""

import math
from collections.abc import AsyncIterator

import pytest

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.config import RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import types_pb2
from services.router.instance import Instance
from services.router.knowledge import Knowledge
from services.router.placer import Objectives
from services.router.view import Work

LAYOUT = types_pb2.KvLayout(
    fingerprint="f", dtype="float32", layers=2, kv_heads=1, head_dim=4, block_size=16, tp=1, pp=1
)
HIGH, NORMAL, LOW = types_pb2.PRIORITY_HIGH, types_pb2.PRIORITY_NORMAL, types_pb2.PRIORITY_LOW
PREFILL_COST = types_pb2.LearnedCost(
    prefill_base_s=0.1, prefill_per_token_s=0.01, prefill_per_square_s=1e-6, prefill_steps=3
)


def report(**fields) -> types_pb2.LoadReport:
    info = types_pb2.InstanceInfo(
        incarnation="life", layout=LAYOUT, max_model_len=100, max_batch_tokens=512, max_batch_seqs=8
    )
    return types_pb2.LoadReport(info=info, **fields)


@pytest.fixture
async def channel() -> AsyncIterator:
    async with open_channel("127.0.0.1:1") as channel:
        yield channel


def instance_of(channel, role: Role, first: types_pb2.LoadReport, **options) -> Instance:
    address = InstanceAddress(role, "127.0.0.1:1", "name")
    return Instance(address, channel, first, Knowledge(RouterConfig(**options)))


async def test_queued_work_counts_by_priority_with_what_was_sent_since(channel) -> None:
    queued = [
        types_pb2.QueuedWork(priority=HIGH, requests=1, tokens=5, squares=25),
        types_pb2.QueuedWork(priority=LOW, requests=1, tokens=7, squares=49),
    ]
    first = report(queued=queued, waiting_tokens=12, waiting_requests=2)
    instance = instance_of(channel, Role.PREFILL, first)
    with instance.dispatch(10, 4, LOW), instance.dispatch(3, 0, HIGH):
        load = instance.candidate().load
        assert load.reported == (Work(5, 25), Work(), Work(7, 49))
        assert load.dispatched == (Work(3, 9), Work(), Work(6, 84))
        assert (load.requests, load.tokens) == (4, 25)
    assert instance.candidate().load.dispatched == (Work(), Work(), Work())


async def test_a_report_covers_what_was_sent_before_it(channel, monkeypatch) -> None:
    instance = instance_of(channel, Role.DECODE, report())
    with instance.dispatch(10) as sent, instance.dispatch(20):
        sent.sent()
        sent.sent_at -= 1
        instance.update(report(decoding_requests=1, context_tokens=10))
        load = instance.candidate().load
        assert (load.decoding, load.tokens) == (2, 30)
        assert instance.running == 2


async def test_memory_is_what_is_free_less_what_was_sent(channel) -> None:
    blocks = types_pb2.BlockCounts(free=2, active=5, cached=1, quarantined=3)
    first = report(blocks=blocks, decoding_requests=2, context_tokens=60, waiting_requests=3)
    instance = instance_of(channel, Role.DECODE, first)
    with instance.dispatch(10):
        load = instance.candidate().load
        assert load.free_tokens == 48 - 10
        assert load.waiting_tokens == 90
        assert load.decoding == 6


async def test_the_candidate_is_the_same_until_something_changes(channel) -> None:
    instance = instance_of(channel, Role.PREFILL, report())
    before = instance.candidate()
    assert instance.candidate() is before
    instance.update(report())
    assert instance.candidate() is not before


async def test_costs_are_known_once_an_instance_has_told_its_own(channel) -> None:
    instance = instance_of(channel, Role.PREFILL, report())
    assert instance.candidate().cost is None
    instance.update(report(cost=PREFILL_COST))
    assert instance.candidate().cost.prefill_s(10) == pytest.approx(0.1 + 0.1 + 1e-4)


async def test_decode_computes_prompts_as_fast_as_others_until_it_has(channel) -> None:
    knowledge = Knowledge(RouterConfig())
    address = InstanceAddress(Role.DECODE, "127.0.0.1:1", "d")
    cost = types_pb2.LearnedCost(decode_base_s=0.02, decode_steps=10)
    decode = Instance(address, channel, report(cost=cost), knowledge)
    assert decode.candidate().cost.prefill_s(10) == math.inf
    address = InstanceAddress(Role.PREFILL, "127.0.0.1:2", "p")
    other = report(cost=PREFILL_COST)
    other.info.incarnation = "other"
    Instance(address, channel, other, knowledge).candidate()
    decode.update(report(cost=cost))
    assert decode.candidate().cost.prefill_s(10) == pytest.approx(0.2001)
    assert decode.candidate().cost.decode_s(1, 1) == pytest.approx(0.02)


async def test_a_profile_is_what_the_planner_planned_by(channel) -> None:
    name = "opt-13b-a100-80g-distserve"
    instance = instance_of(channel, Role.PREFILL, report(cost=PREFILL_COST), profile=name)
    assert instance.candidate().cost.gpus == 1
    assert instance.candidate().cost.prefill_s(10) < 0.1


async def test_the_strictest_objectives_of_what_runs_are_known(channel) -> None:
    instance = instance_of(channel, Role.PREFILL, report())
    assert instance.strictest_slo() == (math.inf, math.inf)
    with (
        instance.dispatch(1, objectives=Objectives(2.0, None)),
        instance.dispatch(1, objectives=Objectives(3.0, 0.1)),
    ):
        assert instance.strictest_slo() == (2.0, 0.1)


async def test_what_is_lost_is_forgotten(channel) -> None:
    changes = types_pb2.CacheChanges(reset=True, added=[1, 2])
    instance = instance_of(channel, Role.PREFILL, report(cache=changes))
    index = instance.knowledge.prefixes[Role.PREFILL]
    assert index.leading_blocks([1, 2, 3]) == {0: 2}
    instance.update(report(cache=types_pb2.CacheChanges(removed=[2])))
    assert index.leading_blocks([1, 2, 3]) == {0: 1}
    instance.lose("gone", dead=True)
    assert len(index) == 0
    assert len(instance.knowledge.links.prefills) == 0
    instance.lose("twice", dead=False)
