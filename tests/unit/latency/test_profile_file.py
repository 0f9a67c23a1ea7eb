"""Profiles that the package carries, and files that people write."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from latency_models import OPT_13B

from pdserve.errors import ConfigError
from pdserve.latency.profile import built_in_profiles, read_profile, write_profile

NAME = "opt-13b-a100-80g-distserve"


def test_the_package_carries_four():
    assert built_in_profiles() == [
        NAME,
        "opt-13b-a100-80g-vllm",
        "opt-66b-a100-80g-distserve",
        "opt-66b-a100-80g-vllm",
    ]


@pytest.mark.parametrize("name", built_in_profiles())
def test_every_parallelism_of_a_built_in_profile_has_costs(name):
    profile = read_profile(name)
    assert profile.parallelisms()
    assert "DistServe" in profile.origin
    for tp, pp in profile.parallelisms():
        cost = profile.instance(tp, pp)
        assert (cost.tp, cost.pp) == (tp, pp)
        assert 0 < cost.decode_s(1, 512) < cost.prefill_s(2048) < 2


def test_a_published_figure_in_seconds():
    """512 tokens on one A100: 18.10 + 0.1019 · 512 + 7.122e-6 · 512² ms, and what Ray adds."""
    cost = read_profile(NAME).instance(1, 1)
    assert cost.prefill_s(512) == pytest.approx(0.07215 + 0.001 + 0.002 + 0.0000512, rel=1e-3)
    assert cost.decode_s(8, 4096) == pytest.approx(0.022811 + 0.002 + 0.00041, rel=1e-3)
    assert cost.kv_tokens == 66144


def test_the_shape_gives_the_models_bytes():
    assert read_profile(NAME).kv.bytes_per_token == OPT_13B.kv_bytes_per_token("float16")


def test_what_is_written_is_read_again(tmp_path):
    written = replace(
        read_profile(NAME), policy="pdserve", fit={"prefill": {"median": 0.01}}, model="own"
    )
    path = tmp_path / "own.json"
    write_profile(written, path)
    read = read_profile(str(path))
    assert read.fit == written.fit
    assert (read.model, read.gpu, read.kv) == (written.model, written.gpu, written.kv)
    assert read.parallelisms() == written.parallelisms()
    for tp, pp in read.parallelisms():
        own = read.instance(tp, pp)
        published = read_profile(NAME).instance(tp, pp)
        assert own.prefill.per_token_s == pytest.approx(published.prefill.per_token_s)
        assert own.decode_large.per_sequence_s == pytest.approx(
            published.decode_large.per_sequence_s
        )
        assert own.dispatch.base_s == own.prefill_stage_s == 0


def test_an_unknown_parallelism_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no tp=3,pp=1; it has tp=1,pp=1"):
        read_profile(NAME).instance(3, 1)


def test_a_name_that_is_no_file_is_refused_with_the_built_in_ones():
    with pytest.raises(ConfigError, match=NAME):
        read_profile("opt-14b")


def _damage(change: Callable[[dict[str, Any]], Any]) -> str:
    path = Path(__file__).parents[3] / "pdserve/latency/profiles" / f"{NAME}.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"),
        ("[]", "JSON object"),
        (_damage(lambda d: d.pop("model")), "model is missing"),
        (_damage(lambda d: d.update(engine=3)), "engine is 3"),
        (_damage(lambda d: d.update(tp=[])), r"tp is \[\]"),
        (_damage(lambda d: d.update(model_shape=5)), "model_shape is 5"),
        (_damage(lambda d: d["model_shape"].update(dtype="int8")), "dtype is 'int8'"),
        (_damage(lambda d: d["model_shape"].update(layers=0)), "layers is 0"),
        (_damage(lambda d: d["tp"].update(two=d["tp"]["2"])), "'two'"),
        (_damage(lambda d: d["tp"]["2"].pop("prefill")), "tp 2: prefill is missing"),
        (_damage(lambda d: d["tp"]["2"].update(prefill=[1, 2])), "tp 2: prefill"),
        (_damage(lambda d: d["tp"]["2"].update(decode_small=[1, 2, "x"])), "tp 2: decode_small"),
        (_damage(lambda d: d["tp"]["2"].update(decode_large=[1, 2, float("nan")])), "decode_large"),
        (_damage(lambda d: d["tp"]["2"].update(decode_large_from_batch=1.5)), "from_batch is 1.5"),
        (_damage(lambda d: d["kv_capacity_tokens_by_tp_x_pp"].update({"8": 1})), "'8'"),
        (_damage(lambda d: d["kv_capacity_tokens_by_tp_x_pp"].update({"1x1": -1})), "1x1 is -1"),
        (_damage(lambda d: d.update(fit=1)), "fit is 1"),
    ],
)
def test_a_malformed_file_is_refused_by_the_key_that_is_wrong(tmp_path, text, named):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=named) as caught:
        read_profile(str(path))
    assert str(path) in str(caught.value)
    assert caught.value.field == "profile"
