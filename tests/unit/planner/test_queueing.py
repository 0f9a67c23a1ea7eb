"""The simulator against queues that have been solved."""

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_workloads import steady

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.planner.simulator.leap import leap_s, steps_reaching
from pdserve.planner.simulator.links import Links, separate_links
from pdserve.planner.simulator.policy import Policy
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

KV_BYTES = 1000.0
PROMPT = 100
ONE_PROMPT = Policy(chunked=False, max_batch_tokens=PROMPT)


@numba.njit
def leap(first, slope, steps):
    return leap_s(first, slope, steps)


@numba.njit
def reaching(first, slope, seconds):
    return steps_reaching(first, slope, seconds)


def cost(pp=1, stage_s=0.0, prefill_s=1e-3):
    """Prefill takes `prefill_s` a token and decode next to nothing."""
    nothing = DecodeCost(1e-6, 0.0, 1e-9)
    line = PrefillCost(0.0, prefill_s, 0.0)
    return InstanceCost(1, pp, line, nothing, nothing, 1, 1 << 24, prefill_stage_s=stage_s)


def poisson(seed, requests, rate):
    gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
    ones = np.ones(requests, np.int64)
    return Workload("poisson", np.cumsum(gaps), PROMPT * ones, ones)


def alone(instance, workload):
    return simulate(Deployment([instance], separate_links(1, np.inf), KV_BYTES), workload, Slo())


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_fixed_prompts_wait_as_in_an_m_d_1_queue(utilisation):
    """The mean wait is ρ s / 2 (1 − ρ) by Pollaczek and Khinchine; waits of twenty runs vary."""
    service_s = PROMPT * 1e-3
    instance = SimulatedInstance("both", cost(), ONE_PROMPT)
    means = [
        alone(instance, poisson(seed, 20_000, utilisation / service_s)).queue_s.mean()
        for seed in range(20)
    ]
    expected = utilisation * service_s / (2 * (1 - utilisation))
    error = np.std(means, ddof=1) / np.sqrt(len(means))
    assert np.mean(means) == pytest.approx(expected, abs=4 * error)
    assert error < 0.02 * expected


@pytest.mark.parametrize("pp", [2, 3, 4])
def test_prefill_passes_go_through_a_pipeline_as_in_a_flow_shop(pp):
    """A pass leaves a stage its time after it has come and the pass before has left."""
    prompts = np.random.default_rng(pp).integers(1, 200, 300)
    workload = replace(poisson(pp, 300, rate=15.0), prompt_tokens=prompts)
    instance = SimulatedInstance("both", cost(pp, stage_s=2e-3), Policy(False, 1))
    free_s = [0.0] * pp
    expected = []
    for arrival_s, prompt in zip(workload.arrival_s, prompts, strict=True):
        left_s = arrival_s
        for stage in range(pp):
            left_s = free_s[stage] = max(left_s, free_s[stage]) + prompt * 1e-3 / pp + 2e-3
        expected.append(left_s - arrival_s)
    assert alone(instance, workload).ttft_s == pytest.approx(expected, rel=1e-9)


def hand_offs(links, roles, workload, **options):
    instances = [SimulatedInstance(role, cost(prefill_s=1e-9), Policy()) for role in roles]
    deployment = Deployment(instances, links, KV_BYTES, **options)
    return simulate(deployment, workload, Slo())


@pytest.mark.parametrize("transfers", [1, 2, 5])
def test_simultaneous_transfers_share_a_link_evenly(transfers):
    """Each takes as long as all of them would one after the other; then its last layers follow."""
    groups, bytes_per_s = 10, 1e6
    workload = steady(transfers, 0.0, PROMPT, 2)
    result = hand_offs(
        separate_links(2, bytes_per_s), ["prefill", "decode"], workload, layer_groups=groups
    )
    size_s = PROMPT * KV_BYTES / bytes_per_s
    # They began with prefill, which was over at once.
    assert result.handoff_s == pytest.approx(np.full(transfers, transfers * size_s), rel=1e-3)
    assert result.sent_bytes[0] == result.sent_bytes[3] == transfers * PROMPT * KV_BYTES


def test_a_transfer_that_joins_slows_the_other_down():
    """Processor sharing of equal sizes: the second comes when the first is half through."""
    size_s = 0.1
    workload = steady(2, size_s / 2, PROMPT, 2)
    result = hand_offs(
        separate_links(2, PROMPT * KV_BYTES / size_s), ["prefill", "decode"], workload
    )
    assert result.handoff_s == pytest.approx([1.5 * size_s, 1.5 * size_s], rel=1e-3)


def test_pairs_of_different_nodes_do_not_share():
    workload = steady(2, 0.0, PROMPT, 2)
    roles = ["prefill", "prefill", "decode", "decode"]
    result = hand_offs(separate_links(4, 1e6), roles, workload)
    assert sorted(result.prefill_on) == [0, 1]
    assert sorted(result.decode_on) == [2, 3]
    assert result.handoff_s == pytest.approx([0.1, 0.1], rel=1e-3)


def test_kv_crosses_the_uplinks_that_lie_between_two_places_and_no_others():
    """Node, rack and zone: the narrowest of the links that are crossed sets the pace."""
    port, card, rack, zone = 0, 1, 2, 3
    speeds = np.array([8e6, 4e6, 2e6, 1e6])
    ends = np.array([[port, card, rack, zone]] * 2)
    for place, crossed in (
        ((0, 0, 0), [port]),
        ((1, 0, 0), [card]),
        ((1, 1, 0), [card, rack]),
        ((1, 1, 1), [card, rack, zone]),
    ):
        links = Links(speeds, ends, ends, np.array([(0, 0, 0), place]))
        result = hand_offs(links, ["prefill", "decode"], steady(1, 0.0, PROMPT, 2))
        # The two ends are the same link here: two transfers' worth on each that is crossed.
        slowest = min(speeds[crossed]) / 2
        assert result.handoff_s == pytest.approx([PROMPT * KV_BYTES / slowest], rel=1e-3)
        assert np.flatnonzero(result.sent_bytes).tolist() == crossed


@pytest.mark.parametrize("groups", [1, 4, 10])
def test_what_prefill_hides_of_a_transfer(groups):
    """With a long prefill only the last layer group, and the latency, come after it."""
    links = separate_links(2, 1e6, latency_s=7e-3)
    instances = [
        SimulatedInstance(role, cost(prefill_s=1e-2), Policy()) for role in ("prefill", "decode")
    ]
    deployment = Deployment(instances, links, KV_BYTES, layer_groups=groups)
    result = simulate(deployment, steady(1, 0.0, PROMPT, 2), Slo())
    tail_s = PROMPT * KV_BYTES / 1e6 / groups
    assert result.handoff_s == pytest.approx([7e-3 + tail_s])


@given(
    first=st.floats(1e-6, 1.0),
    share=st.floats(0, 1e-2),
    steps=st.integers(1, 400),
)
def test_a_leap_is_the_sum_of_its_steps(first, share, steps):
    slope = first * share
    single = [first + k * slope for k in range(steps)]
    assert leap(first, slope, steps) == pytest.approx(sum(single))


@given(
    first=st.floats(1e-6, 1.0),
    share=st.floats(0, 1e-2),
    steps=st.integers(1, 2000),
    part=st.floats(0.01, 0.99),
)
def test_a_leap_is_cut_at_the_end_of_the_step_in_progress(first, share, steps, part):
    slope = first * share
    begun = leap(first, slope, steps - 1)
    inside = begun + part * (leap(first, slope, steps) - begun)
    assert reaching(first, slope, inside) == steps
    assert reaching(first, slope, leap(first, slope, steps)) == steps
    assert reaching(first, slope, 0.0) == 1
