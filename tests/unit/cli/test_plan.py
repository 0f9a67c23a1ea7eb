"""`pdserve plan` from the command line to the files that it writes."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from pdserve.cli.main import main
from pdserve.planner.plan_file import read_plan

PROBLEM = (
    *("--profile", "opt-13b-a100-80g-distserve", "--gpu", "a100", "--gpus-per-node", "4"),
    *("--prompt", "lognormal:mean=500,sigma=0.5", "--output", "uniform:50-150"),
    *("--requests", "300", "--ttft-ms", "500", "--tpot-ms", "100"),
    *("--effort", "quick", "--seeds", "2"),
)
PUBLISHED = files("pdserve.latency") / "profiles" / f"{PROBLEM[1]}.json"
FILES = ("plan.yaml", "values.yaml", "report.html")


def plan(out: Path, *words: str, problem: Sequence[str] = PROBLEM) -> int:
    return main(["plan", *problem, "--out", str(out), *words])


def test_a_plan_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tmp_path, "--json") == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    written = read_plan(tmp_path / "plan.yaml")
    assert written.gpus <= 4
    assert told["plan"]["goodput"] == pytest.approx(written.prediction.goodput, rel=1e-3)
    for name in FILES:
        assert (tmp_path / name).stat().st_size > 100
        assert str(tmp_path / name) in printed.err.replace("\n", "")


def test_a_model_that_no_pod_finds_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "no pod finds Llama-3.1-70B by that name"
    profile = json.loads(PUBLISHED.read_text("utf-8"))
    (tmp_path / "local.json").write_text(json.dumps({**profile, "model": "Llama-3.1-70B"}))
    for name, noted in ((PROBLEM[1], False), (str(tmp_path / "local.json"), True)):
        problem = (PROBLEM[0], name, *PROBLEM[2:])
        assert plan(tmp_path / "plan", "--rate", "3", problem=problem) == 0
        assert (note in capsys.readouterr().err) == noted


def test_the_same_words_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert plan(tmp_path / name, "--rate", "3") == 0
    for name in FILES[:2]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_plan_can_be_simulated_on_other_workloads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, "--rate", "3") == 0
    capsys.readouterr()
    words = ["--plan", str(tmp_path / "plan.yaml"), *PROBLEM[:6], "--prompt", "200"]
    words += ["--output", "20", "--rate", "3", "--ttft-ms", "500", "--tpot-ms", "100", "--json"]
    assert main(["simulate", *words]) == 0
    assert json.loads(capsys.readouterr().out)["attainment"] == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--ttft-ms", "1"], "the TTFT SLO cannot be met"),
        (["--tpot-ms", "1"], "the TPOT SLO cannot be met"),
        (["--rate", "500"], "no plan serves 500 requests/s on 4 GPUs"),
        (["--gpus", "5"], "gpus is 5; it must lie in [1, 4]"),
        (["--max-tp", "0"], "max_tp is 0; it must be at least 1"),
        (["--max-pp", "-1"], "max_pp is -1; it must be at least 1"),
        (["--seeds", "0"], "seeds is 0; it must be at least 1"),
        (["--threads", "-1"], "threads is -1; it must be at least 0"),
        (["--gpu", "h100"], "the cluster has H100"),
        (["--gpu", "abacus"], "abacus"),
        (["--nodes", "0"], "nodes"),
        (["--prompt", "lognormal:mean=-1"], "prompt"),
    ],
)
def test_what_is_wrong_or_impossible_is_named_and_nothing_written(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, *words) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_slo_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tmp_path, problem=PROBLEM[:12]) == 2
    assert "--ttft-ms, --tpot-ms or both" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert plan(tmp_path / "file" / "plan") == 2
    assert "Not a directory" in capsys.readouterr().err
