"""The simulator makes the very steps that the services' scheduler makes.

`ScheduledCluster` drives `pdserve.scheduling.Scheduler` and its block pool; the simulator has code
of its own. Small budgets and small pools make prompts come in chunks, admissions wait and
sequences be preempted. What the simulator leaves out on purpose is left out here too: blocks that
sequences share through the prefix cache (it saves their computation, but not their memory), KV that
a preempted sequence would find in the cache when it comes back, and batches of more sequences than
the token budget has tokens.
"""

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from scheduled_cluster import Node, ScheduledCluster

from pdserve.latency.cost import DecodeCost, Dispatch, InstanceCost, PrefillCost
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import Policy
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload


def cost(kv_tokens):
    return InstanceCost(
        tp=1,
        pp=1,
        prefill=PrefillCost(3.1e-3, 1.7e-4, 1.3e-8),
        decode=DecodeCost(4.3e-3, 1.1e-6, 2.3e-4),
        decode_large=DecodeCost(2.9e-3, 1.3e-6, 5.1e-4),
        large_from=6,
        kv_tokens=kv_tokens,
        prefill_stage_s=1.9e-4,
        dispatch=Dispatch(2.3e-4, 1.7e-8),
    )


@st.composite
def engines(draw):
    """An instance's cost and policy."""
    size = draw(st.integers(1, 5))
    blocks = draw(st.one_of(st.integers(5, 16), st.integers(100, 240)))
    budget = draw(st.integers(2, 40))
    seqs = draw(st.integers(1, min(budget, 8)))
    policy = Policy(max_batch_tokens=budget, max_batch_seqs=seqs, block_size=size)
    return cost(blocks * size), policy


@st.composite
def requests(draw, capacity):
    """Up to 20 requests of (arrival, prompt, output) of which each fits into `capacity` tokens."""
    arrival, chosen = 0.0, []
    gap = draw(st.sampled_from([1e-3, 1e-2, 1e-1]))
    for _ in range(draw(st.integers(1, 20))):
        prompt = draw(st.integers(1, min(60, capacity - 1)))
        output = draw(st.integers(1, min(30, capacity - prompt)))
        chosen.append((arrival, prompt, output))
        arrival += draw(st.floats(0, 1)) * gap
    return chosen


def simulated(engines, roles, wanted):
    instances = [
        SimulatedInstance(role, *engine) for role, engine in zip(roles, engines, strict=True)
    ]
    arrival_s, prompt, output = (np.array(column) for column in zip(*wanted, strict=True))
    links = separate_links(len(instances), np.inf)
    workload = Workload("drawn", arrival_s.astype(float), prompt, output)
    return simulate(Deployment(instances, links, kv_bytes=1.0), workload, Slo())


def assert_same(result, seen, wanted):
    arrival_s = np.array([arrival for arrival, *_ in wanted])
    assert result.preemptions.tolist() == [each.preemptions for each in seen]
    assert result.ttft_s + arrival_s == pytest.approx([each.first_s for each in seen], rel=1e-9)
    assert result.finished_s == pytest.approx([each.finished_s for each in seen], rel=1e-9)


@settings(max_examples=200)
@given(st.data(), engines())
def test_a_colocated_instance_makes_the_same_steps(data, engine):
    wanted = data.draw(requests(engine[0].kv_tokens))
    seen = ScheduledCluster(Node(*engine)).run(wanted)
    result = simulated([engine], ["both"], wanted)
    event(f"preempts: {result.preemptions.any()}")
    assert_same(result, seen, wanted)


@settings(max_examples=200)
@given(st.data(), engines(), engines())
def test_prefill_and_decode_make_the_same_steps(data, prefill, decode):
    wanted = data.draw(requests(min(prefill[0].kv_tokens, decode[0].kv_tokens)))
    seen = ScheduledCluster(Node(*prefill), Node(*decode)).run(wanted)
    result = simulated([prefill, decode], ["prefill", "decode"], wanted)
    event(f"preempts: {result.preemptions.any()}")
    assert_same(result, seen, wanted)


def test_sequences_that_outgrow_the_pool_are_preempted_alike():
    """Six sequences grow in a pool that holds four of them."""
    engine = cost(40), Policy(max_batch_tokens=64, max_batch_seqs=8, block_size=2)
    wanted = [(0.0, 6, 12)] * 6
    result = simulated([engine], ["both"], wanted)
    assert result.preemptions.sum() > 0
    assert_same(result, ScheduledCluster(Node(*engine)).run(wanted), wanted)
