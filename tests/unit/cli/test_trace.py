"""`pdserve trace`, and the flags by which other commands take a workload."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pdserve.cli.main import main
from pdserve.cli.workload_flags import add_workload_flags, load_workload
from pdserve.errors import ConfigError
from pdserve.workload.read import read_trace, read_trace_file
from pdserve.workload.workload import Workload

TRACE = "arrival_s,prompt_tokens,output_tokens\n0,100,10\n1,200,20\n2,300,30\n5,400,40\n"
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,GPT-4,472,18,490,API log\n45,GPT-4,1087,0,1087,API log\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [7, 8]}\n'
    '{"timestamp": 500, "input_length": 600, "output_length": 5, "hash_ids": [7, 9]}\n'
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "made.csv"
    path.write_text(TRACE)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(MOONCAKE)
    return path


def test_show_prints_the_figures(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "show", str(trace)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for words in (
        ("made",),
        ("requests", " 4 "),
        ("rate, requests/s", "0.6"),
        ("prompt", "250.0", "250", "400"),
        ("output", "25.0", "25", "40"),
        ("prompt tokens in shared prefixes", "–"),
    ):
        assert any(all(word in line for word in words) for line in lines), words


def test_show_as_json(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "show", str(shared), "--json", "--window=0.1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["requests"], shown["rate"]) == ("mooncake", 2, 2.0)
    assert shown["shared_prefix"] == pytest.approx(512 / 1300)
    assert shown["window_s"] == 0.1
    assert shown["prompt_tokens"]["max"] == 700


def test_failed_requests_are_reported_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "burst.csv"
    path.write_text(BURSTGPT)
    assert main(["trace", "show", str(path), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["requests"] == 1
    assert shown.err == f"note: {path}: failed requests (0 tokens) left out: 1\n"


def test_convert_applies_its_operations(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    words = ["--start=1", "--end=5", "--repeat=6", "--max-context=310", "--rate=4"]
    assert main(["trace", "convert", str(trace), str(out), *words]) == 0
    made = read_trace(out)
    assert made.prompt_tokens.tolist() == [200, 300] * 3
    assert made.output_tokens.tolist() == [20, 10] * 3
    assert made.rate == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("trace_format", ["csv", "jsonl", "azure", "mooncake", "burstgpt"])
def test_convert_to_every_format(
    trace: Path, tmp_path: Path, trace_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["trace", "convert", str(trace), str(out), f"--format={trace_format}"]
    assert main([*words, "--from=csv", "--limit=3"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 requests at 1 requests/s\n"
    file = read_trace_file(out)
    assert file.format.name == trace_format
    assert file.workload.arrival_s.tolist() == [0, 1, 2]


def test_convert_drops_prefixes_only_when_told(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trace", "convert", str(shared), str(tmp_path / "out.csv")]
    assert main(words) == 2
    assert "mooncake has shared prefixes, which the format csv cannot hold" in (
        capsys.readouterr().err
    )
    assert main([*words, "--drop-prefixes", "--thin=0.5", "--seed=1"]) == 0
    assert len(read_trace(tmp_path / "out.csv")) == 1


def test_draw_writes_the_same_trace_again(tmp_path: Path) -> None:
    outs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    words = ["--prompt=lognormal:mean=755,sigma=1", "--output=uniform:10-200", "--rate=4"]
    words += ["--arrivals=gamma:cv=3", "--requests=200", "--seed=3", "--max-context=1000"]
    for out in outs:
        assert main(["trace", "draw", str(out), *words]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    made = read_trace(outs[0])
    assert len(made) == 200
    assert (made.prompt_tokens + made.output_tokens).max() <= 1000


def test_draw_conversations_and_lengths_of_a_trace(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    words = [f"--lengths={trace}", "--conversations=turns=3,system=512", "--requests=50"]
    assert main(["trace", "draw", str(out), *words]) == 0
    made = read_trace(out)
    assert made.prefix is not None
    assert made.prompt_tokens.min() >= 612
    assert set(made.output_tokens.tolist()) == {10, 20, 30, 40}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["show", "/no/such/file"], "/no/such/file: No such file or directory"),
        (["show", "TRACE", "--format=azure"], "line 1: the header has no column 'TIMESTAMP'"),
        (["show", "TRACE", "--window=0"], "window is 0.0 s"),
        (["convert", "TRACE", "out.txt"], "out.txt: the suffix tells no format"),
        (["convert", "TRACE", "out.csv", "--rate=0"], "rate is 0.0; it must be above 0"),
        (["convert", "TRACE", "out.csv", "--limit=0"], "limit is 0; it must be at least 1"),
        (["convert", "TRACE", "out.csv", "--start=9"], "no request arrives from 9.0 s to inf s"),
        (["convert", "TRACE", "out.csv", "--thin=2"], "share is 2.0"),
        (["draw", "out.csv"], "no --prompt: a workload is --prompt and --output, or --lengths"),
        (["draw", "out.csv", "--prompt=5"], "no --output"),
        (["draw", "out.csv", "--prompt=x", "--output=1"], "--prompt 'x': no distribution"),
        (["draw", "out.csv", "--prompt=1", "--output=0"], "--output '0': tokens is 0"),
        (
            ["draw", "out.csv", "--prompt=1", "--output=1", "--arrivals=gamma:cv=0"],
            "--arrivals 'gamma:cv=0': cv is 0.0; it must be above 0",
        ),
        (["draw", "out.csv", "--lengths=TRACE", "--prompt=1"], "--lengths does not go with"),
        (["draw", "out.csv", "--lengths=TRACE", "--requests=0"], "requests is 0"),
    ],
)
def test_what_is_wrong_is_status_2_and_named(
    words: list[str],
    text: str,
    trace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(trace.parent)
    assert main(["trace", *(word.replace("TRACE", trace.name) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error


def test_a_malformed_line_is_status_2_and_named(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_text(TRACE + "6,many,1\n")
    assert main(["trace", "show", str(trace)]) == 2
    assert capsys.readouterr().err == (
        f"error: {trace}, line 6: prompt_tokens is 'many'; it must be a whole number below 2^63\n"
    )


@pytest.mark.parametrize("words", [[], ["show"], ["convert", "a"], ["draw"], ["show", "a", "--js"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trace", *words])
    assert ended.value.code == 2


@pytest.mark.parametrize("action", [[], ["show"], ["convert"], ["draw"]])
def test_help_has_examples(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trace", *action, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"\n  pdserve trace {action[0] if action else 'show'} " in shown


def test_traces_need_no_torch() -> None:
    code = (
        "import sys, pdserve.cli.trace\n"
        "heavy = ('torch', 'pandas', 'grpc', 'services')\n"
        "print([name for name in sys.modules if name.split('.')[0] in heavy])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def loaded(*words: str) -> Workload:
    parser = argparse.ArgumentParser()
    add_workload_flags(parser)
    return load_workload(parser.parse_args(words))


def test_a_workload_from_a_trace(trace: Path) -> None:
    assert loaded("--trace", str(trace)).arrival_s.tolist() == [0, 1, 2, 5]
    limited = loaded("--trace", str(trace), "--limit=3", "--rate=10", "--trace-format=csv")
    assert limited.rate == pytest.approx(10)
    assert limited.prompt_tokens.tolist() == [100, 200, 300]
    cut = loaded("--trace", str(trace), "--max-context=301")
    assert cut.prompt_tokens.tolist() == [100, 200, 300, 300]


def test_a_workload_that_is_drawn(trace: Path) -> None:
    made = loaded("--prompt=512", "--output=uniform:1-9", "--rate=5")
    assert len(made) == 1000
    assert made.rate == pytest.approx(5, rel=0.1)
    assert len(loaded("--lengths", str(trace), "--requests=7", "--arrivals=fixed")) == 7


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no --prompt: a workload is --trace FILE, or --prompt and --output, or --lengths"),
        (["--limit=3"], "--limit goes with --trace"),
        (["--trace=x", "--prompt=3"], "--prompt does not go with --trace"),
        (["--trace=x", "--seed=3"], "--seed does not go with --trace"),
    ],
)
def test_flags_that_do_not_go_together_are_named(words: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        loaded(*words)
