"""From an instance to a profile: of known costs, and of a real engine."""

import random
import time
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from known_cost import CONFIG, Clock, TimedRunner, loaded_with

from pdserve.config import InstanceConfig
from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.profile import read_profile, write_profile
from pdserve.profiling.profiler import Report, profile_instance
from pdserve.profiling.shape import Kind
from tests.unit.engine.tiny_models import make_checkpoint

TRUTH = InstanceCost(
    tp=1,
    pp=1,
    prefill=PrefillCost(20e-3, 0.5e-3, 40e-9),
    decode=DecodeCost(15e-3, 4e-6, 0.3e-3),
    decode_large=DecodeCost(9e-3, 4e-6, 1.2e-3),
    large_from=8,
    kv_tokens=16 * 1024,
)


def ignore(share: float) -> None:
    """Progress that nobody watches."""


def profile_of(noise=lambda: 1.0) -> Report:
    clock = Clock()
    loaded = loaded_with(TimedRunner(TRUTH, clock, noise))
    return profile_instance(CONFIG, 60.0, clock, ignore, lambda _: loaded)


def test_the_costs_of_a_known_engine_are_recovered() -> None:
    report = profile_of()
    assert not report.measurement.left_out
    cost = report.profile.instance(1, 1)
    for found, true in (
        (cost.prefill, TRUTH.prefill),
        (cost.decode, TRUTH.decode),
        (cost.decode_large, TRUTH.decode_large),
    ):
        assert astuple(found) == pytest.approx(astuple(true), rel=1e-6)
    assert (cost.large_from, cost.kv_tokens) == (8, 16 * 1024)
    assert set(report.fitted.errors) == set(Kind)
    assert all(errors.maximum < 1e-6 for errors in report.fitted.errors.values())


def test_a_machine_that_is_busy_now_and_then_changes_little() -> None:
    rng = random.Random(1)
    report = profile_of(lambda: 3.0 if rng.random() < 0.2 else 1.0 + 0.02 * rng.random())
    for errors in report.fitted.errors.values():
        assert errors.median < 0.02
    cost = report.profile.instance(1, 1)
    assert cost.prefill_s(200) == pytest.approx(TRUTH.prefill_s(200), rel=0.05)
    assert cost.decode_s(16, 8000) == pytest.approx(TRUTH.decode_s(16, 8000), rel=0.05)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"max_batch_tokens": 8}, "max_batch_tokens"), ({"max_batch_seqs": 1}, "max_batch_seqs")],
)
def test_an_instance_that_has_hardly_any_steps_is_refused(options: dict, field: str) -> None:
    with pytest.raises(ConfigError, match="a profile needs at least") as caught:
        profile_instance(InstanceConfig(**options), 1.0, Clock(), ignore)
    assert caught.value.field == field


def test_an_instance_for_short_texts_only_is_refused() -> None:
    clock = Clock()
    loaded = loaded_with(TimedRunner(TRUTH, clock), max_len=32)
    with pytest.raises(ConfigError, match="a profile needs at least 64") as caught:
        profile_instance(CONFIG, 1.0, clock, ignore, lambda _: loaded)
    assert caught.value.field == "max_model_len"


def check_real(device: str, directory: Path) -> None:
    """Profiles a tiny model for a moment, and reads the profile back from its file."""
    make_checkpoint("llama", directory / "model")
    config = InstanceConfig(
        model=str(directory / "model"),
        device=device,
        dtype="float32",
        threads=1,
        max_batch_tokens=64,
        max_batch_seqs=8,
        block_size=8,
        kv_memory_bytes=4 << 20,
    )
    report = profile_instance(config, 2.0, time.perf_counter, ignore)
    path = directory / "profile.json"
    write_profile(report.profile, path)
    profile = read_profile(str(path))
    assert (profile.policy, profile.parallelisms()) == ("pdserve", [(1, 1)])
    assert (profile.kv.layers, profile.kv.kv_heads, profile.kv.head_dim) == (3, 2, 12)
    cost = profile.instance(1, 1)
    assert cost.kv_tokens * profile.kv.bytes_per_token == pytest.approx(4 << 20, rel=0.01)
    for line in (cost.prefill, cost.decode, cost.decode_large):
        assert all(0 <= value < 1 for value in astuple(line))
        assert any(value > 0 for value in astuple(line))
    assert set(profile.fit["relative_errors"]) == {"prefill", "decode", "mixed"}
    assert profile.fit["machine"]["torch"] == torch.__version__
    assert profile.fit["samples"] > 20
    assert profile.gpu


def test_a_real_engine_is_profiled(tmp_path: Path) -> None:
    check_real("cpu", tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_engine_is_profiled_on_a_gpu(tmp_path: Path) -> None:
    check_real("cuda", tmp_path)
