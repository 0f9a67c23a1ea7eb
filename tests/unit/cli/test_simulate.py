"""`pdserve simulate` from the command line to what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from pdserve.cli.main import main

PROFILE = "opt-13b-a100-80g-distserve"
SLOS = ("--ttft-ms", "400", "--tpot-ms", "100")


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    lines = [f"{k * 0.4},{200 + 10 * (k % 30)},{20 + k % 50}" for k in range(200)]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]) + "\n")
    return str(path)


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["simulate", *words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_json_has_the_figures_that_others_compute_with(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--profile", PROFILE, "--trace", trace, "--prefill", "tp=2,pp=1,replicas=1")
    answer = simulated(capsys, *words, "--decode", "tp=1,pp=1,replicas=1", *SLOS)
    assert answer["requests"] == 200
    assert 0.9 < answer["attainment"] <= 1
    for name in ("ttft_ms", "tpot_ms"):
        assert 0 < answer[name]["p50"] <= answer[name]["p90"] <= answer[name]["p99"]
    assert answer["requests_per_wall_s"] == pytest.approx(200 / answer["wall_s"])


def test_a_lone_request_takes_what_the_profile_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n5,1000,1\n")
    words = ("--profile", PROFILE, "--trace", str(path), "--prefill", "tp=1", "--decode", "tp=1")
    answer = simulated(capsys, *words)
    # The line of the profile, 1 ms of the stage, 2 ms and 0.1 µs a token of Ray.
    assert answer["ttft_ms"]["p50"] == pytest.approx(18.1025 + 101.912 + 7.1223 + 1 + 2.1, abs=0.01)


def test_a_slow_link_shows_between_the_first_token_and_the_second(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--profile", PROFILE, "--trace", trace, "--prefill", "tp=2", "--decode", "tp=2")
    fast = simulated(capsys, *words)
    slow = simulated(capsys, *words, "--link-gbps", "10", "--link-latency-ms", "5")
    assert fast["handoff_ms"]["p50"] == 0
    # A prompt of 200 tokens has 164 MB of KV.
    assert slow["handoff_ms"]["p50"] > 164 / 10 * 8
    assert slow["ttft_ms"]["p50"] == pytest.approx(fast["ttft_ms"]["p50"])


def test_colocated_instances_need_no_others(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--profile", "opt-13b-a100-80g-vllm", "--trace", trace)
    answer = simulated(capsys, *words, "--colocated", "tp=2,replicas=2", *SLOS)
    assert answer["handoff_ms"] == {"p50": None, "p90": None, "p99": None}
    assert answer["attainment"] > 0.5


def test_a_model_and_a_gpu_do_instead_of_a_profile(
    tmp_path: Path, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ("--model", str(tmp_path), "--gpu", "h100", "--trace", trace)
    answer = simulated(capsys, *words, "--prefill", "tp=1", "--decode", "tp=1", *SLOS)
    assert answer["attainment"] == 1


def test_the_table_shows_what_the_json_says(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--profile", PROFILE, "--trace", trace, "--colocated", "tp=2"]
    assert main([*words, *SLOS]) == 0
    shown = capsys.readouterr().out
    assert "attainment" in shown
    assert "TTFT" in shown
    assert "200 requests, 0 refused" in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--prefill", "tp=1"], "--prefill and --decode"),
        (["--prefill", "tp=1", "--decode", "tp=1", "--colocated", "tp=1"], "or --colocated"),
        ([], "or --plan"),
        (["--colocated", "tp=0"], "tp must be a whole number of 1 or more"),
        (["--colocated", "tp=1,tp=2"], "at most once"),
        (["--colocated", "gpus=1"], "'gpus=1' is not one of tp=N, pp=N, replicas=N"),
        (["--colocated", "tp=3"], "has no tp=3,pp=1; it has tp=1,pp=1"),
        (["--colocated", "tp=1", "--ttft-ms", "0"], "ttft is 0 ms; it must be above 0"),
        (["--colocated", "tp=1", "--tpot-ms", "nan"], "tpot is nan ms; it must be above 0"),
        (
            ["--colocated", "tp=1", "--attainment", "1.5"],
            "attainment is 1.5; it must lie in (0, 1]",
        ),
        (["--colocated", "tp=1", "--link-gbps", "-1"], "link_gbps is -1.0; it must be above 0"),
        (["--colocated", "tp=1", "--max-batch-seqs", "0"], "max_batch_seqs is 0"),
        (["--colocated", "tp=1", "--plan", "plan.yaml"], "--plan has its own instances"),
        (["--plan", "missing.yaml"], "missing.yaml"),
    ],
)
def test_what_is_wrong_is_named(
    words: list[str], text: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--profile", PROFILE, "--trace", trace, *words]) == 2
    assert text in capsys.readouterr().err


def test_costs_must_come_from_somewhere(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--trace", trace, "--colocated", "tp=1"]) == 2
    assert "--profile, or --model and --gpu" in capsys.readouterr().err
    assert (
        main(["simulate", "--trace", trace, "--colocated", "tp=1", "--profile", "none.json"]) == 2
    )
    assert "built-in ones are opt-13b-a100-80g-distserve" in capsys.readouterr().err
