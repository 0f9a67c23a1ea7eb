"""What holds for every simulation, whatever is simulated."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_workloads import chats, steady

from pdserve.latency.cost import DecodeCost, Dispatch, InstanceCost, PrefillCost
from pdserve.latency.profile import read_profile
from pdserve.planner.simulator import simulation
from pdserve.planner.simulator.kernel import run
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import DISTSERVE, PDSERVE, VLLM, Policy
from pdserve.planner.simulator.result import Result
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

OPT = read_profile("opt-13b-a100-80g-distserve")
POLICIES = [
    Policy(max_batch_tokens=16, max_batch_seqs=6, block_size=4),
    Policy(chunked=False, max_batch_tokens=50, max_batch_seqs=8, block_size=4),
    replace(DISTSERVE, decode_context=120),
]


def cost(kv_tokens=1 << 20, pp=1, speed=1.0):
    return InstanceCost(
        tp=1,
        pp=pp,
        prefill=PrefillCost(3.1e-3 / speed, 1.7e-4 / speed, 1.3e-8),
        decode=DecodeCost(4.3e-3 / speed, 1.1e-6, 2.3e-4 / speed),
        decode_large=DecodeCost(2.9e-3 / speed, 1.3e-6, 5.1e-4 / speed),
        large_from=6,
        kv_tokens=kv_tokens,
        prefill_stage_s=1.9e-4,
        dispatch=Dispatch(2.3e-4, 1.7e-8),
    )


@st.composite
def deployments(draw):
    """Colocated instances, or up to two groups of prefill and decode, of different GPUs."""
    policy = draw(st.sampled_from(POLICIES))

    def instance(role, group=0):
        kv_tokens = 4 * draw(st.sampled_from([12, 20, 200]))
        made = cost(kv_tokens, draw(st.integers(1, 3)), draw(st.sampled_from([1.0, 2.5])))
        return SimulatedInstance(role, made, policy, group)

    some = st.integers(1, 2)
    if draw(st.booleans()):
        instances = [instance("both") for _ in range(draw(some))]
    else:
        instances = [
            instance(role, group)
            for group in range(draw(some))
            for role in ("prefill", "decode")
            for _ in range(draw(some))
        ]
    links = separate_links(
        len(instances),
        draw(st.sampled_from([2e3, 1e5, np.inf])),
        draw(st.sampled_from([0.0, 2e-2])),
    )
    groups = draw(st.integers(1, 6))
    return Deployment(instances, links, kv_bytes=10.0, layer_groups=groups)


@st.composite
def workloads(draw, least_output=1):
    lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(least_output, 30)), min_size=1)
    prompts, outputs = np.array(draw(lengths)).T
    gap = draw(st.sampled_from([0.0, 1e-3, 1e-1]))
    arrivals = np.cumsum([draw(st.floats(0, 1)) * gap for _ in prompts]) + 3.0
    return Workload("drawn", arrivals, prompts, outputs)


@settings(max_examples=100)
@given(deployments(), workloads())
def test_every_request_finishes_or_is_refused_and_times_are_ordered(deployment, workload):
    result = simulate(deployment, workload, Slo())
    arrival_s = workload.arrival_s
    served = np.isfinite(result.finished_s)
    assert np.count_nonzero(~served) == result.refused
    started_s = arrival_s + result.queue_s
    first_s = arrival_s + result.ttft_s
    assert np.array_equal(served, np.isfinite(first_s))
    hair = 1e-9
    assert np.all(started_s[served] >= arrival_s[served])
    assert np.all(first_s[served] > started_s[served])
    assert np.all(result.finished_s[served] >= first_s[served] - hair)
    handed = np.isfinite(result.handoff_s)
    ready_s = (first_s + result.handoff_s)[handed]
    assert np.all(ready_s <= result.finished_s[handed] + hair)
    assert np.all(result.tpot_s[served] >= 0)
    assert result.end_s == pytest.approx(
        np.max(result.finished_s - arrival_s[0], where=served, initial=0.0)
    )


@settings(max_examples=100)
@given(deployments(), workloads())
def test_requests_go_where_they_can_be_held_and_stay_in_their_group(deployment, workload):
    result = simulate(deployment, workload, Slo())
    for r in range(len(workload)):
        p, d = result.prefill_on[r], result.decode_on[r]
        if p < 0:
            assert np.isnan(result.ttft_s[r])
            continue
        first, second = deployment.instances[p], deployment.instances[d]
        assert first.role != "decode"
        assert second.role != "prefill"
        assert first.group == second.group
        assert first.holds(workload)[r]
        assert second.holds(workload)[r]


@settings(max_examples=100)
@given(deployments(), workloads(least_output=2))
def test_nothing_is_left_behind(deployment, workload):
    """A request of one token may end while its KV is under way, so that all have more."""
    kept = []

    def run_and_keep(world):
        kept.append(world)
        return run(world)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "run", run_and_keep)
        simulate(deployment, workload, Slo())
    (world,) = kept
    instances = np.asarray(world.instances)
    for name in ("queued", "decoding", "joining", "prefilling", "passing", "loading", "seqs"):
        assert not instances[name].any(), name
    for name in ("context", "tokens"):
        assert not instances[name].any(), name
    assert np.array_equal(instances["free_blocks"], instances["kv_blocks"])
    assert instances["backlog_s"] == pytest.approx(0.0, abs=1e-9)
    assert not np.asarray(world.links)["transfers"].any()
    assert np.asarray(world.run)[0]["transfers"] == 0


@settings(max_examples=50)
@given(deployments(), workloads())
def test_the_same_input_gives_the_same_output_to_the_bit(deployment, workload):
    first, second = (simulate(deployment, workload, Slo()) for _ in range(2))
    for field in fields(Result):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert one.tobytes() == other.tobytes(), field.name
    assert first.end_s == second.end_s


@settings(max_examples=100)
@given(
    deployments(),
    workloads(),
    st.floats(1e-3, 0.3),
    st.floats(1e-3, 0.05),
    st.sampled_from([0.5, 0.7, 0.9, 0.95, 1.0]),
)
def test_stopping_early_does_not_change_the_verdict(deployment, workload, ttft_s, tpot_s, target):
    slo = Slo(ttft_s, tpot_s, target)
    whole = simulate(deployment, workload, slo)
    early = simulate(deployment, workload, slo, stop_early=True)
    assert early.meets(slo) == whole.meets(slo)
    assert not whole.stopped_early


@settings(max_examples=50)
@given(deployments(), workloads())
def test_only_times_between_arrivals_count(deployment, workload):
    later = replace(workload, arrival_s=workload.arrival_s + 1024.0)
    here, there = (simulate(deployment, each, Slo()) for each in (workload, later))
    assert there.ttft_s == pytest.approx(here.ttft_s, nan_ok=True, abs=1e-6)
    assert there.finished_s - 1024.0 == pytest.approx(here.finished_s, nan_ok=True, abs=1e-6)


def pair(policy, bytes_per_s=np.inf, tp=1):
    made = OPT.instance(tp, 1)
    instances = [SimulatedInstance(role, made, policy) for role in ("prefill", "decode")]
    return Deployment(instances, separate_links(2, bytes_per_s), OPT.kv.bytes_per_token)


@pytest.mark.parametrize("policy", [PDSERVE, VLLM, DISTSERVE], ids=["pdserve", "vllm", "distserve"])
def test_more_load_attains_no_more(policy):
    """Up to three standard errors of a share of 2,000 requests."""
    slo = Slo(ttft_s=0.4, tpot_s=0.06)
    shares = [
        simulate(pair(policy), chats(7, 2000, rate), slo).attainment(slo)
        for rate in (0.5, 1, 2, 3, 4, 6, 9)
    ]
    assert np.all(np.diff(shares) <= 3 * np.sqrt(0.25 / 2000))
    assert shares[0] > 0.9
    assert shares[-1] < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_faster_links_are_not_worse(seed):
    """Not request by request: one that comes earlier joins other batches, and delays others."""
    workload = chats(seed, 500, 2.5)
    slo = Slo(ttft_s=0.4, tpot_s=0.08)
    slow, fast, infinite = (
        simulate(pair(PDSERVE, speed), workload, slo) for speed in (2e9, 25e9, np.inf)
    )
    means = [np.mean(each.finished_s - workload.arrival_s) for each in (infinite, fast, slow)]
    assert means[0] <= means[1] * 1.002
    assert means[1] <= means[2] * 1.002
    assert slow.attainment(slo) <= infinite.attainment(slo) + 0.01
    moved = np.isfinite(infinite.handoff_s)
    assert infinite.handoff_s[moved] == pytest.approx(infinite.admission_s[moved])


def test_a_long_prompt_goes_to_the_instance_that_holds_it():
    """The small one is idle, and would never have the blocks."""
    small, large = (SimulatedInstance("both", cost(tokens)) for tokens in (64, 4096))
    deployment = Deployment([small, large], separate_links(2, np.inf), 1.0)
    result = simulate(deployment, steady(3, 0.0, 500, 20), Slo())
    assert result.refused == 0
    assert result.prefill_on.tolist() == [1, 1, 1]


def test_a_group_whose_decode_is_too_small_is_passed_over():
    def group(number, tokens):
        return [
            SimulatedInstance("prefill", cost(4096), group=number),
            SimulatedInstance("decode", cost(tokens), group=number),
        ]

    deployment = Deployment(group(0, 64) + group(1, 4096), separate_links(4, np.inf), 1.0)
    result = simulate(deployment, steady(3, 0.0, 500, 20), Slo())
    assert result.refused == 0
    assert result.decode_on.tolist() == [3, 3, 3]


def test_a_workload_that_fits_nowhere_is_refused_as_a_whole():
    deployment = Deployment([SimulatedInstance("both", cost(64))], separate_links(1, np.inf), 1.0)
    slo = Slo(1.0, 1.0)
    for stop_early in (False, True):
        result = simulate(deployment, steady(3, 0.1, 500, 20), slo, stop_early=stop_early)
        assert result.refused == 3
        assert result.attainment(slo) == 0.0
        assert not result.meets(slo)


def test_a_backlog_of_any_size_decodes_without_a_limit_of_memory():
    """More sequences at once than DistServe's policy names as its most."""
    waiting = DISTSERVE.max_batch_seqs + 500
    slow = replace(cost(), decode=DecodeCost(1e3, 0.0, 0.0), large_from=1 << 40)
    roles = [("prefill", cost()), ("decode", slow)]
    instances = [SimulatedInstance(role, each, DISTSERVE) for role, each in roles]
    deployment = Deployment(instances, separate_links(2, np.inf), 1.0)
    result = simulate(deployment, steady(waiting, 1e-4, 10, 2), Slo())
    assert np.all(np.isfinite(result.finished_s))


def test_a_single_output_token_needs_no_transfer():
    """Prefill keeps nothing for a request that ends with its first token."""
    policy = Policy(max_batch_seqs=1)
    roles = [
        SimulatedInstance("prefill", cost(), PDSERVE),
        SimulatedInstance("decode", cost(), policy),
    ]
    deployment = Deployment(roles, separate_links(2, 1.0), kv_bytes=1.0)
    workload = replace(steady(4, 0.0, 10, 1), output_tokens=np.array([3, 1, 1, 1]))
    result = simulate(deployment, workload, Slo())
    # The one place on decode is taken for as long as 10 bytes take at one a second.
    assert result.handoff_s[0] > 9
    assert np.isnan(result.handoff_s[1:]).all()
    assert result.finished_s[1:] == pytest.approx(result.ttft_s[1:])
    assert result.sent_bytes.max() == 10


def test_a_late_admission_still_pays_the_links_latency():
    policy = Policy(max_batch_seqs=1)
    roles = [
        SimulatedInstance("prefill", cost(), PDSERVE),
        SimulatedInstance("decode", cost(), policy),
    ]
    deployment = Deployment(roles, separate_links(2, np.inf, latency_s=0.25), kv_bytes=1.0)
    result = simulate(deployment, steady(2, 0.0, 10, 3), Slo())
    assert result.admission_s[1] > 0.25
    assert result.handoff_s - result.admission_s == pytest.approx([0.25, 0.25])


def test_a_queue_moves_on_when_a_pipeline_lets_go_of_the_memory():
    """The second prompt needs all blocks, and nothing but the first one's end frees them."""
    policy = Policy(block_size=4)
    made = Deployment(
        [SimulatedInstance("both", cost(48, pp=2), policy)], separate_links(1, 1.0), 1.0
    )
    workload = replace(steady(2, 0.0, 1, 1), prompt_tokens=np.array([1, 45]))
    result = simulate(made, workload, Slo())
    assert result.queue_s[1] == pytest.approx(result.ttft_s[0])
