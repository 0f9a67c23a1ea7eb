"""The commands that talk to a router, against a real gRPC server with scripted answers."""

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from scripted_router import ScriptedRouter, listening

from pdserve.cli.main import main
from pdserve.errors import InvalidRequestError, OverloadedError, UnavailableError


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def router() -> Iterator[ScriptedRouter]:
    with listening(ScriptedRouter()) as router:
        yield router


def test_generate_prints_the_answer_and_nothing_else(
    router: ScriptedRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "Hi", f"--router={router.address}"]) == 0
    assert capsys.readouterr().out == "Hello, world\n"
    (request,) = router.requests
    assert [(each.role, each.content) for each in request.chat.messages] == [("user", "Hi")]


def test_generate_sends_what_the_flags_say(router: ScriptedRouter) -> None:
    words = ["--raw", "--model=tiny", "--max-tokens=9", "--temperature=0.5", "--seed=0"]
    words += ["--stop=a", "--stop=b", "--top-k=3", "--ignore-eos"]
    assert main(["generate", "Once", f"--router={router.address}", *words]) == 0
    (request,) = router.requests
    assert (request.prompt, request.model) == ("Once", "tiny")
    assert list(request.stop) == ["a", "b"]
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k) == (9, 0.5, 3)
    assert sampling.HasField("seed")
    assert sampling.ignore_eos


def test_generate_reads_the_prompt_and_takes_a_system_message(
    router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a file\n"))
    assert main(["generate", "-", "--system=Be brief.", f"--router={router.address}"]) == 0
    (request,) = router.requests
    assert [each.content for each in request.chat.messages] == ["Be brief.", "from a file\n"]


def test_explain_shows_the_ledger_the_attempts_and_the_totals(
    router: ScriptedRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "Hi", "--explain", f"--router={router.address}"]) == 0
    shown = capsys.readouterr().out
    for words in (
        ("prefill compute", "40.0"),
        ("TTFT", "43.5"),
        ("decode steps", "150.0"),
        ("total", "199.5"),
        ("attempt 1: remote, prefill on p-0, decode on d-0",),
        ("failed: d-0 died",),
        ("attempt 2: local, both phases on d-1",),
        ("why: no prefill instance is up",),
        ("31 prompt tokens (16 cached)", "7 output tokens", "by length", "TPOT 26.0", "2.5 MB"),
    ):
        assert any(all(word in line for word in words) for line in shown.splitlines()), words


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidRequestError("max_tokens is 9; at most 8", field="max_tokens"), "max_tokens is 9"),
        (OverloadedError("the queue is full"), "the queue is full"),
        (UnavailableError("no decode instance is up"), "no decode instance is up"),
    ],
)
def test_what_the_router_refuses_is_said_in_its_words(
    error: Exception, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(ScriptedRouter(error=error)) as router:
        assert main(["generate", "Hi", f"--router={router.address}"]) == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    assert text in str(error)


@pytest.mark.parametrize("command", [["generate", "Hi"], ["models"], ["status"]])
def test_without_a_router_the_way_to_one_is_shown(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert main([*command, f"--router={address}"]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"error: no router at {address}; start one with `pdserve up`, or name it with --router\n"
    )


def test_numbers_that_no_field_can_hold_are_refused_before_any_call(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["generate", "Hi", "--max-tokens=-1"]) == 1
    assert "max_tokens is -1" in capsys.readouterr().err


def test_models_and_status_are_tables(
    router: ScriptedRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", f"--router={router.address}"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("tiny", "8192", "49152", "yes"))
    assert main(["status", f"--router={router.address}"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("decode-0", "10/20/30/40", "[no] answer", "down"))


def test_ctrl_c_ends_an_answer_with_130() -> None:
    process: list[subprocess.Popen[bytes]] = []
    with listening(ScriptedRouter()) as router:
        router.on_call = lambda: os.kill(process[0].pid, signal.SIGINT)
        command = [sys.executable, "-m", "pdserve", "generate", "Hi", f"--router={router.address}"]
        process.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        out, err = process[0].communicate(timeout=30)
    assert process[0].returncode == 130
    assert b"Hello, world".startswith(out)
    assert err == b""


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_chat_remembers_the_conversation(
    router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, "one", "", "two", "/explain", "/reset", "three")
    assert main(["chat", "--system=s", f"--router={router.address}"]) == 0
    contents = [[each.content for each in request.chat.messages] for request in router.requests]
    assert contents == [["s", "one"], ["s", "one", "Hello, world", "two"], ["s", "three"]]
    assert "prefill compute" in capsys.readouterr().out


def test_chat_goes_on_after_a_refused_turn_and_forgets_it(
    router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router.error = InvalidRequestError("too long")
    talk(monkeypatch, "one", "two")
    assert main(["chat", f"--router={router.address}"]) == 0
    assert capsys.readouterr().err.count("error: too long") == 2
    assert [len(request.chat.messages) for request in router.requests] == [1, 1]
