import subprocess
import sys

import pytest

from pdserve.cli.main import main


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pdserve", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("pdserve ")


@pytest.mark.parametrize(
    "command", ["up", "generate", "chat", "models", "status", "prefill", "decode", "router"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: pdserve {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no-such-command"],
        ["generate"],
        ["up", "--no-such-flag"],
        ["up", "--instances=x.yaml"],  # it writes that file itself
        ["generate", "x", "--up", "--router=a:1"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["prefill", "--port=x"], "--port is 'x'; it must be a whole number"),
        (["decode", "--block-size=0"], "block_size is 0"),
        (["router", "--placer=best"], "--placer is 'best'"),
        (["up", "--decode=0"], "decode is 0"),
        (["router", "--config=/no/such/file"], "/no/such/file"),
    ],
)
def test_wrong_options_are_status_2_and_named(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("module", ["generate", "chat", "models", "status", "up", "router"])
def test_commands_load_neither_torch_nor_services(module: str) -> None:
    code = (
        f"import sys, pdserve.cli.main, pdserve.cli.{module}\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'services')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_a_missing_engine_is_explained() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pdserve.cli.main import main; raise SystemExit(main(['prefill']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'pdserve[engine]'" in done.stderr
