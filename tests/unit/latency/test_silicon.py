"""Costs from measured operators; most of it where aiconfigurator-core is installed."""

import sys

import pytest
from latency_models import LLAMA_8B

from pdserve.errors import ConfigError
from pdserve.latency.factors import RooflineFactors
from pdserve.latency.hardware import find_gpu
from pdserve.latency.roofline import Roofline
from pdserve.latency.silicon import Silicon

MODEL = "meta-llama/Meta-Llama-3.1-8B"
H100 = find_gpu("h100")


@pytest.fixture
def _installed():
    pytest.importorskip("aiconfigurator_core")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    for name in (
        "aiconfigurator_core",
        "aiconfigurator_core.sdk.engine",
        "aiconfigurator_core.sdk.memory",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    source = Silicon(MODEL, LLAMA_8B, H100)
    for ask in (source.parallelisms, lambda: source.instance(1, 1)):
        with pytest.raises(ConfigError, match=r"pip install 'pdserve\[silicon\]'"):
            ask()


def test_gpus_and_backends_without_measurements_are_refused():
    with pytest.raises(ConfigError, match="gpu is 'L4'"):
        Silicon(MODEL, LLAMA_8B, find_gpu("l4"))
    with pytest.raises(ConfigError, match="backend is 'tgi'"):
        Silicon(MODEL, LLAMA_8B, H100, backend="tgi")


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm"])
def test_the_fit_is_close_to_the_packages_times(backend):
    source = Silicon(MODEL, LLAMA_8B, H100, backend=backend)
    for tp in (1, 2):
        prefill, decode = source.fit_errors(tp, 1)
        assert prefill.median < 0.1
        assert prefill.maximum < 0.4
        assert decode.median < 0.05
        assert decode.maximum < 0.2


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_the_roofline_agrees_with_measured_operators(tp):
    """vLLM replays CUDA graphs, so that the roofline gets nearly no overhead to launch layers."""
    factors = RooflineFactors(layer_s=15e-6, pass_s=0)
    seen = Silicon(MODEL, LLAMA_8B, H100).instance(tp, 1)
    computed = Roofline(MODEL, LLAMA_8B, "bfloat16", H100, factors=factors).instance(tp, 1)
    for tokens in (128, 512, 2048, 8192):
        assert computed.prefill_s(tokens) == pytest.approx(seen.prefill_s(tokens), rel=0.35)
    for batch in (1, 32, 128, 256):
        context = batch * 512
        assert computed.decode_s(batch, context) == pytest.approx(
            seen.decode_s(batch, context), rel=0.35
        )
    assert computed.kv_tokens == pytest.approx(seen.kv_tokens, rel=0.2)


@pytest.mark.usefixtures("_installed")
def test_parallelisms_leave_room_for_kv():
    source = Silicon(MODEL, LLAMA_8B, H100, max_tp=4, max_pp=2)
    assert source.parallelisms() == [(tp, pp) for tp in (1, 2, 4) for pp in (1, 2)]
    assert source.instance(2, 2).kv_tokens > 3 * source.instance(1, 1).kv_tokens


@pytest.mark.usefixtures("_installed")
def test_what_the_package_has_not_is_refused(tmp_path):
    nowhere = tmp_path / "model"
    nowhere.mkdir()
    for source in (
        Silicon(str(nowhere), LLAMA_8B, H100),
        Silicon(MODEL, LLAMA_8B, H100, version="0.1"),
    ):
        with pytest.raises(ConfigError, match="aiconfigurator-core has no costs"):
            source.instance(1, 1)
    with pytest.raises(ConfigError, match="tp is 3"):
        Silicon(MODEL, LLAMA_8B, H100).instance(3, 1)
