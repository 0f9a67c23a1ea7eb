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
from pdserve.errors import (
    InvalidRequestError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)


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


def test_the_key_in_the_environment_is_shown(
    router: ScriptedRouter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["generate", "Hi", f"--router={router.address}"]) == 0
    assert "authorization" not in router.metadata
    monkeypatch.setenv("PDSERVE_API_KEY", "a-key-of-mine")
    assert main(["generate", "Hi", f"--router={router.address}"]) == 0
    assert router.metadata["authorization"] == "Bearer a-key-of-mine"
    router.error = UnauthenticatedError("the API key is not known")
    assert main(["generate", "Hi", f"--router={router.address}"]) == 1
    said = capsys.readouterr().err
    assert "the API key is not known; the variable PDSERVE_API_KEY" in said
    assert "a-key-of-mine" not in said


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
    shown = capsys.readouterr()
    assert shown.err == f"error: {error}\n"
    assert shown.out == "Hello, world\n"  # the error begins a line of its own
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


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--max-tokens=-1", "max_tokens is -1; it must lie in [0, 2147483647]"),
        ("--seed=18446744073709551616", "it must lie in [0, 18446744073709551615]"),
    ],
)
def test_numbers_that_no_field_can_hold_are_refused_before_any_call(
    flag: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "Hi", flag]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--router=", "'' is not host:port"),
        ("--router=localhost", "'localhost' is not host:port"),
        ("--router=http://127.0.0.1:7700", "is not host:port, such as 127.0.0.1:7700"),
        ("--timeout-s=0", "'0' is not a number of seconds above 0"),
        ("--timeout-s=nan", "'nan' is not a number of seconds above 0"),
    ],
)
def test_flags_that_make_no_sense_are_wrong_usage(
    flag: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "Hi", flag])
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_name_without_an_address_is_no_router(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--router=no-such-host.invalid:7700"]) == 1
    assert "no router at no-such-host.invalid:7700" in capsys.readouterr().err


def test_an_answer_that_takes_too_long_is_said_so_on_a_line_of_its_own(
    router: ScriptedRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    router.on_call = lambda: None
    assert main(["generate", "Hi", "--timeout-s=1", f"--router={router.address}"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "Hello, world\n"
    assert "did not complete its answer in time" in shown.err


@pytest.mark.parametrize("words", [["generate", "-"], ["chat"]])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])  # Python reads them in different ways
def test_input_that_is_not_utf_8_is_said_so(
    words: list[str], locale: str, router: ScriptedRouter
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pdserve", *words, f"--router={router.address}"],
        input=b"\xff\xfe\n",
        capture_output=True,
        env={**os.environ, "LC_ALL": locale},
        timeout=60,
    )
    assert done.returncode == 1
    assert b"error: text that is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
    assert router.requests == []


def test_a_reader_that_has_gone_ends_the_answer_quietly(router: ScriptedRouter) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pdserve", "generate", "Hi", f"--router={router.address}"]
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def test_models_and_status_are_tables(
    router: ScriptedRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", f"--router={router.address}"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("tiny", "8192", "49152", "yes"))
    assert main(["status", f"--router={router.address}"]) == 0
    shown = capsys.readouterr().out
    table = [line.split() for line in shown.splitlines()]
    blocks = "100000/200000/300000/400000"  # nothing is cut where no terminal sets a width
    address = "decode-0.some-cluster.internal:7801"
    assert ["decode-0", "decode", address, "up", "3", "0", blocks] in table
    assert ["prefill-0", "prefill", "127.0.0.1:2", "down", "0", "0", "0/0/0/0"] in table
    assert "prefill-0: [no] answer" in shown.splitlines()


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


def test_chat_sends_no_mistyped_command_to_the_model(
    router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, "/help")
    assert main(["chat", f"--router={router.address}"]) == 0
    assert router.requests == []
    assert capsys.readouterr().err.count("/reset starts afresh") == 2  # at the start, and now


def test_chat_goes_on_after_a_refused_turn_and_forgets_it(
    router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    router.error = InvalidRequestError("too long")
    talk(monkeypatch, "one", "two")
    assert main(["chat", f"--router={router.address}"]) == 0
    assert capsys.readouterr().err.count("error: too long") == 2
    assert [len(request.chat.messages) for request in router.requests] == [1, 1]
