"""The command `pdserve profile`: what it refuses, and what it shows and writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pdserve.cli.main import main
from pdserve.latency.profile import read_profile
from tests.unit.engine.tiny_models import make_checkpoint


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "1e9"])
def test_a_time_that_makes_no_sense_is_wrong_usage(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["profile", f"--seconds={seconds}"])
    assert ended.value.code == 2
    assert f"{seconds!r} is not a number of seconds in [1, 86400]" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "none" / "profile.json"):
        assert main(["profile", "--model=no-such-model", f"--output={path}"]) == 2
        assert f"output is {path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "status", "text"),
    [
        ("--model=no-such-model", 1, "no-such-model"),
        ("--threads=x", 2, "--threads is 'x'; it must be a whole number"),
        ("--device=tpu", 2, "device is 'tpu'"),
        ("--kv-memory-bytes=1000000000000000", 1, "lower --kv-memory-bytes"),
        ("--max-batch-seqs=2", 2, "max_batch_seqs is 2; a profile needs at least 4"),
        ("--max-model-len=100000", 2, "max_model_len is 100000"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_a_sentence(
    flag: str, status: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_checkpoint("llama", tmp_path / "model")
    output = tmp_path / "profile.json"
    words = [f"--model={tmp_path / 'model'}", f"--output={output}", flag]
    assert main(["profile", *words]) == status
    error = capsys.readouterr().err
    assert text in error
    assert "error: " in error
    assert not output.exists()


def test_a_missing_engine_is_explained() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pdserve.cli.main import main; raise SystemExit(main(['profile']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'pdserve[engine]'" in done.stderr


def test_help_needs_no_engine() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pdserve.cli.main import main; main(['profile', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "--seconds" in done.stdout
    assert "--max-batch-tokens" in done.stdout


def test_the_profile_is_written_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_checkpoint("llama", tmp_path / "tiny")
    output = tmp_path / "profile.json"
    words = ["--threads=1", "--max-batch-tokens=64", "--kv-memory-bytes=4194304", "--seconds=2"]
    words += [f"--model={tmp_path / 'tiny'}", f"--output={output}"]
    assert main(["profile", *words]) == 0
    profile = read_profile(str(output))
    shown = capsys.readouterr().out
    for text in ("tiny on ", f"{profile.kv_tokens[1, 1]} tokens of KV", f"written to {output}"):
        assert text in shown
    for kind in ("prefill", "decode", "mixed"):
        assert any(kind in line and "%" in line for line in shown.splitlines())
