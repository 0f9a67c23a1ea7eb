"""With DistServe's policy the simulator computes what DistServe's own simulator does.

Against a slow re-implementation for any load, and against figures of the original where the
reference data lie beside the repository.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_distserve import Job, NaiveDistServe
from planner_workloads import chats

from pdserve.latency.profile import read_profile
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import DISTSERVE
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

PROFILES = {model: read_profile(f"opt-{model}-a100-80g-distserve") for model in ("13b", "66b")}
DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


def simulated(workload, prefill, decode=None, slo=None):
    both = decode is None
    instances = [SimulatedInstance("both" if both else "prefill", prefill, DISTSERVE)]
    if not both:
        instances.append(SimulatedInstance("decode", decode, DISTSERVE))
    links = separate_links(len(instances), np.inf)
    return simulate(Deployment(instances, links, kv_bytes=1.0), workload, slo or Slo())


def naive(workload, prefill, decode=None, *, merge=True):
    columns = (workload.arrival_s, workload.prompt_tokens, workload.output_tokens)
    jobs = [Job(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return NaiveDistServe(prefill, decode, merge=merge).run(jobs)


def assert_equal(result, jobs):
    assert result.ttft_s == pytest.approx([job.ttft_s for job in jobs], abs=1e-9)
    assert result.tpot_s == pytest.approx([job.tpot_s for job in jobs], abs=1e-9)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0.1, 12),
    prefill=st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 4), (2, 2)]),
    tp=st.sampled_from([1, 2, 4]),
)
def test_every_request_sees_the_same_times(seed, rate, prefill, tp):
    costs = [PROFILES["13b"].instance(*parallelism) for parallelism in (prefill, (tp, 1))]
    workload = chats(seed, 60, rate, output=30)
    assert_equal(simulated(workload, *costs), naive(workload, *costs))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0.1, 8), tp=st.sampled_from([1, 2, 4]))
def test_every_request_sees_the_same_times_colocated(seed, rate, tp):
    cost = PROFILES["13b"].instance(tp, 1)
    workload = chats(seed, 60, rate, output=30)
    assert_equal(simulated(workload, cost), naive(workload, cost))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0.1, 20),
    pp=st.sampled_from([2, 4]),
    colocated=st.booleans(),
)
def test_every_request_sees_the_same_times_in_a_pipeline_of_whole_passes(seed, rate, pp, colocated):
    prefill = PROFILES["13b"].instance(1, pp)
    decode = None if colocated else PROFILES["13b"].instance(1, pp)
    workload = chats(seed, 60, rate, output=30)
    jobs = naive(workload, prefill, decode, merge=False)
    assert_equal(simulated(workload, prefill, decode), jobs)


@pytest.mark.parametrize("rate", [5.0, 8.0])
def test_contexts_beyond_one_step_take_turns(rate):
    """Decode lags behind by more sequences than one step holds: 50,000 tokens."""
    costs = PROFILES["13b"].instance(4, 1), PROFILES["13b"].instance(1, 1)
    workload = chats(1, 300, rate, prompt=1500, output=60)
    jobs = naive(workload, *costs)
    assert_equal(simulated(workload, *costs), jobs)
    assert max(job.tpot_s for job in jobs) > 0.08


@pytest.mark.parametrize(
    ("decode", "rate"),
    [((1, 2), 4.0), ((1, 2), 12.0), ((1, 4), 8.0), ((1, 4), 14.0), ((1, 4), 24.0), ((2, 4), 20.0)],
)
def test_a_decode_pipeline_is_close(decode, rate):
    """Decode passes that wait for the same stage are merged there, and not here; few do."""
    slo = Slo(ttft_s=0.4, tpot_s=0.055)
    costs = PROFILES["13b"].instance(4, 1), PROFILES["13b"].instance(*decode)
    workload = chats(2, 250, rate, output=60)
    result, jobs = simulated(workload, *costs, slo), naive(workload, *costs)
    assert_close(result, jobs, slo)
    assert result.ttft_s == pytest.approx([job.ttft_s for job in jobs], abs=1e-9)


@pytest.mark.parametrize(("pp", "rate"), [(2, 2.0), (2, 5.0), (4, 3.0), (4, 6.0)])
def test_a_colocated_pipeline_is_close(pp, rate):
    """Later stages take passes in their order here; there each stage prefers prompts."""
    slo = Slo(ttft_s=0.4, tpot_s=0.09)
    cost = PROFILES["13b"].instance(1, pp)
    workload = chats(3, 250, rate, output=60)
    assert_close(simulated(workload, cost, slo=slo), naive(workload, cost), slo)


def assert_close(result, jobs, slo):
    ttft_s = np.array([job.ttft_s for job in jobs])
    tpot_s = np.array([job.tpot_s for job in jobs])
    attained = (ttft_s <= slo.ttft_s) & (tpot_s <= slo.tpot_s)
    assert result.attainment(slo) == pytest.approx(attained.mean(), abs=0.03)
    for ours, theirs in ((result.ttft_s, ttft_s), (result.tpot_s, tpot_s)):
        wanted = np.percentile(theirs, (50, 90))
        assert np.percentile(ours, (50, 90)) == pytest.approx(wanted, rel=0.1)


def reference_rows():
    path = DATA / "distserve_sim_reference.json"
    return json.loads(path.read_text())["rows"] if path.exists() else [None]


def row_name(row):
    if row is None:
        return "absent"
    names = ("model", "tp_prefill", "pp_prefill", "tp_decode", "pp_decode", "rate")
    return "-".join(str(row[name]) for name in names)


@pytest.mark.parametrize("row", reference_rows(), ids=row_name)
def test_figures_of_the_original(row):
    if row is None:
        pytest.skip(f"no reference data in {DATA}")
    profile = PROFILES[row["model"].removeprefix("opt_")]
    slo = Slo(row["ttft_ms"] / 1e3, row["tpot_ms"] / 1e3)
    result = simulated(
        reference_trace(row["rate"]),
        profile.instance(row["tp_prefill"], row["pp_prefill"]),
        profile.instance(row["tp_decode"], row["pp_decode"]),
        slo,
    )
    assert result.attainment(slo) == pytest.approx(row["attainment"], abs=0.03)
    for name, seconds in (("ttft", result.ttft_s), ("tpot", result.tpot_s)):
        seen = result.percentiles(seconds)
        for percentile in ("p50", "p90"):
            wanted = row[f"{name}_{percentile}_ms"]
            assert seen[percentile] == pytest.approx(wanted, rel=0.03), (name, percentile)


def reference_trace(rate):
    with (DATA / "traces" / "azure_conv_1000_unit_rate.csv").open() as file:
        rows = list(csv.DictReader(file))
    arrival_s = np.array([float(row["arrival_s"]) for row in rows]) / rate
    prompts = np.array([int(row["prompt_tokens"]) for row in rows])
    outputs = np.array([int(row["output_tokens"]) for row in rows])
    return Workload("reference", arrival_s - arrival_s[0], prompts, outputs)


@pytest.mark.parametrize(("model", "decode"), [("13b", (1, 2)), ("13b", (1, 4)), ("66b", (2, 4))])
def test_goodput_of_a_decode_pipeline_is_close(model, decode):
    """The highest rate at which 90 % of requests attain, to within a tenth."""
    slo = Slo(ttft_s=2.5, tpot_s=0.06 if model == "13b" else 0.09)
    costs = (
        PROFILES[model].instance(8 if model == "66b" else 4, 1),
        PROFILES[model].instance(*decode),
    )

    def by_naive(workload):
        return np.mean(
            [
                job.ttft_s <= slo.ttft_s and job.tpot_s <= slo.tpot_s
                for job in naive(workload, *costs)
            ]
        )

    def by_simulator(workload):
        return simulated(workload, *costs, slo).attainment(slo)

    assert goodput(by_simulator) == pytest.approx(goodput(by_naive), rel=0.1)


def goodput(attainment):
    low, high = 1.0, 64.0
    while high > 1.05 * low:
        rate = np.sqrt(low * high)
        attains = attainment(chats(4, 200, rate, output=60)) >= 0.9
        low, high = (rate, high) if attains else (low, rate)
    return low
