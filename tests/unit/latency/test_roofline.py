"""Costs from sizes and figures: against published measurements, and as they must change."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_models import LLAMA_8B, OPT_13B, OPT_66B

from pdserve.errors import ConfigError
from pdserve.latency.cost import Dispatch, InstanceCost
from pdserve.latency.factors import RooflineFactors
from pdserve.latency.hardware import Gpu, find_gpu
from pdserve.latency.link import LinkCost
from pdserve.latency.profile import read_profile
from pdserve.latency.roofline import Roofline
from pdserve.models.config import ModelConfig

bounded = settings(max_examples=25, deadline=None)
A100, H100 = find_gpu("a100"), find_gpu("h100")


def roofline(
    config: ModelConfig = OPT_13B, hardware: Gpu = A100, dtype: str = "float16", **options
) -> Roofline:
    return Roofline("model", config, dtype, hardware, **options)


def measured(name: str, tp: int) -> InstanceCost:
    """DistServe's figures of the model's passes alone, without what its use of Ray adds."""
    profile = replace(read_profile(name), dispatch=Dispatch(), prefill_stage_s=0.0)
    return profile.instance(tp, 1)


PROFILES = [
    ("opt-13b-a100-80g-distserve", OPT_13B, 1),
    ("opt-13b-a100-80g-distserve", OPT_13B, 2),
    ("opt-13b-a100-80g-distserve", OPT_13B, 4),
    ("opt-66b-a100-80g-distserve", OPT_66B, 2),
    ("opt-66b-a100-80g-distserve", OPT_66B, 4),
    ("opt-66b-a100-80g-distserve", OPT_66B, 8),
]


@pytest.mark.parametrize(("name", "config", "tp"), PROFILES)
def test_prefill_agrees_with_measurements(name, config, tp):
    """Within 1.35 from 256 tokens on; below that within 1.7, for weights are read and computed
    with at the same time in a roofline and largely one after the other in measurements."""
    seen, computed = measured(name, tp), roofline(config).instance(tp, 1)
    for tokens in (256, 512, 1024, 2048):
        assert 1 / 1.35 < computed.prefill_s(tokens) / seen.prefill_s(tokens) < 1.35
    for tokens in (64, 128):
        assert 1 / 1.7 < computed.prefill_s(tokens) / seen.prefill_s(tokens) < 1.7


@pytest.mark.parametrize(("name", "config", "tp"), PROFILES)
@pytest.mark.parametrize("length", [128, 512, 1024])
def test_decode_agrees_with_measurements(name, config, tp, length):
    """Within 1.2 while the batch is small. Large batches within 1.5: the measured coefficients
    themselves jump by up to a third at the batch size where they change."""
    seen, computed = measured(name, tp), roofline(config).instance(tp, 1)
    for batch in (1, 4, 16, 64):
        context = batch * length
        assert 1 / 1.2 < computed.decode_s(batch, context) / seen.decode_s(batch, context) < 1.2
    for batch in (96, 128, 256):
        context = batch * length
        assert 1 / 1.5 < computed.decode_s(batch, context) / seen.decode_s(batch, context) < 1.5


@pytest.mark.parametrize(("name", "config", "tp"), PROFILES)
def test_kv_capacity_agrees_with_measurements(name, config, tp):
    """Within a fifth: the tighter the memory, the more a fixed reserve weighs."""
    assert roofline(config).instance(tp, 1).kv_tokens == pytest.approx(
        measured(name, tp).kv_tokens, rel=0.2
    )


def test_h100_is_faster_by_its_figures():
    """Where nothing is launched, prefill by the ratio of FLOP/s and decode by that of bandwidth."""
    bare = RooflineFactors(layer_s=0, pass_s=0)
    slow, fast = (roofline(hardware=gpu, factors=bare).instance(1, 1) for gpu in (A100, H100))
    assert slow.prefill_s(8192) / fast.prefill_s(8192) == pytest.approx(989.5 / 312, rel=0.1)
    assert slow.decode_s(16, 16384) / fast.decode_s(16, 16384) == pytest.approx(3350 / 2039)


@bounded
@given(st.sampled_from([OPT_13B, LLAMA_8B]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2]))
def test_decode_regimes_meet_at_the_threshold(config, tp, pp):
    """The roofline is continuous, and both lines are exact."""
    cost = roofline(config).instance(tp, pp)
    small, large = cost.decode, cost.decode_large
    meeting = (small.base_s - large.base_s) / (large.per_sequence_s - small.per_sequence_s)
    assert cost.large_from - 1 < meeting <= cost.large_from
    assert small.per_context_token_s == large.per_context_token_s


def test_the_line_through_prefill_times_is_close():
    for config in (OPT_13B, LLAMA_8B):
        error = roofline(config).prefill_fit(1, 1)
        assert error.median < 0.06
        assert error.maximum < 0.25


def test_the_quadratic_part_is_that_of_attention():
    cost = roofline(OPT_13B).instance(1, 1)
    exact = 2 * 40 * 5120 / (312e12 * RooflineFactors().attention)
    assert cost.prefill.per_square_s == pytest.approx(exact)


def test_tp_over_a_slow_link_costs_more_than_it_gains():
    slow = replace(A100, link_bytes_per_s=1e9)
    fast_tp4, slow_tp4 = (roofline(hardware=gpu).instance(4, 1) for gpu in (A100, slow))
    alone = roofline().instance(1, 1)
    assert fast_tp4.prefill_s(2048) < alone.prefill_s(2048) / 2
    assert slow_tp4.prefill_s(2048) > alone.prefill_s(2048)
    assert slow_tp4.decode_s(64, 65536) > fast_tp4.decode_s(64, 65536)


def test_each_all_reduce_has_a_latency():
    near, far = (
        roofline(factors=RooflineFactors(ring_step_s=step)).instance(4, 1) for step in (0, 1e-5)
    )
    added = OPT_13B.layers * 2 * 2 * 3 * 1e-5
    assert far.decode_s(1, 1) - near.decode_s(1, 1) == pytest.approx(added)


def test_stages_cost_a_hop_and_their_overhead():
    near, far = (roofline(stage_link=LinkCost(s, 1e15)).instance(1, 4) for s in (0.0, 1e-3))
    assert far.decode_s(4, 4) - near.decode_s(4, 4) == pytest.approx(3e-3)
    one, four = (roofline(factors=RooflineFactors(pass_s=1e-3)).instance(1, pp) for pp in (1, 4))
    assert four.prefill_s(1024) > one.prefill_s(1024) + 2.5e-3


def test_float32_computes_on_slower_units_and_reads_twice_as_much():
    half, single = (roofline(dtype=dtype).instance(2, 1) for dtype in ("float16", "float32"))
    assert single.prefill_s(4096) > 8 * half.prefill_s(4096)
    assert single.decode.per_context_token_s == pytest.approx(2 * half.decode.per_context_token_s)


def test_parallelisms_are_those_that_divide_and_fit():
    assert (1, 1) not in roofline(OPT_66B).parallelisms()
    assert (2, 1) in roofline(OPT_66B).parallelisms()
    assert roofline(max_tp=2, max_pp=1).parallelisms() == [(1, 1), (2, 1)]
    odd = replace(OPT_13B, heads=20, kv_heads=20, layers=36)
    assert {tp for tp, _ in roofline(odd).parallelisms()} == {1, 2, 4}
    assert {pp for _, pp in roofline(odd).parallelisms()} == {1, 2, 4}


def test_replicated_kv_leaves_room_for_fewer_tokens():
    few = replace(LLAMA_8B, kv_heads=2)
    two, four, eight = (roofline(few).instance(tp, 1).kv_tokens for tp in (2, 4, 8))
    assert two < four < eight < 1.5 * two


@pytest.mark.parametrize(
    ("config", "tp", "pp", "text"),
    [
        (OPT_66B, 1, 1, r"\d+\.\d GiB of weights"),
        (OPT_13B, 16, 1, "tp is 16; it must be at most 8"),
        (OPT_13B, 1, 16, "pp is 16; it must be at most 8"),
        (OPT_13B, 1, 3, "pp is 3; it must divide the model's 40 layers"),
    ],
)
def test_an_impossible_instance_says_what_prevents_it(config, tp, pp, text):
    with pytest.raises(ConfigError, match=text):
        roofline(config).instance(tp, pp)


def test_wrong_options_are_refused_by_name():
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        roofline(dtype="int8")
    with pytest.raises(ConfigError, match="max_tp is 0"):
        roofline(max_tp=0)
    for name, value in (("linear", 0.0), ("weights", 1.5), ("layer_s", -1.0), ("kv", float("nan"))):
        with pytest.raises(ConfigError, match=name):
            RooflineFactors(**{name: value})
