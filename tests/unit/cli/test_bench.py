"""`pdserve bench` from its flags to its files, against a real server in a thread."""

import argparse
import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from pdserve.bench.record import Outcome, Record
from pdserve.cli import bench
from pdserve.cli.bench_progress import BenchProgress
from pdserve.cli.main import main
from pdserve.planner.slo import Slo
from pdserve.workload.read import read_trace
from tests.doubles import null_openai

SHORT = ["--prompt=8", "--output=3", "--requests=4", "--rate=200", "--warmup=1", "--quiet"]


@contextmanager
def serving(asked: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The URL of a server that answers at once."""
    started = threading.Event()
    found: list = []

    async def serve() -> None:
        server = await null_openai.start(0.0, asked)
        stop = asyncio.Event()
        found.extend((null_openai.url_of(server), asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(20)
    try:
        yield found[0]
    finally:
        found[1].call_soon_threadsafe(found[2].set)
        thread.join(20)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as found:
        yield found


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "made.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,9,2\n0.01,5,1\n0.02,7,3\n")
    return path


def lines(path: Path, record: str) -> list[dict]:
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in read if line["record"] == record]


def test_rates_one_after_the_other(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"--json={tmp_path / 'run.jsonl'}", f"--plot={tmp_path / 'run.html'}"]
    words = ["bench", f"--url={url}", *SHORT, "--rate=100,200", "--ttft-ms=60000", *files]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"100 requests/s · {url}" in shown
    assert "4 of 4 requests answered" in shown
    assert "SLO: TTFT ≤ 60 s" in shown
    points = lines(tmp_path / "run.jsonl", "point")
    assert [point["rate"] for point in points] == [100, 200]
    assert all(point["attainment"]["value"] == 1.0 for point in points)
    assert len(lines(tmp_path / "run.jsonl", "request")) == 8
    made = read_trace(tmp_path / "run.jsonl")
    assert made.prompt_tokens.tolist() == [8] * 8
    assert made.output_tokens.tolist() == [3] * 8
    assert "100% of the requests met the SLOs" in (tmp_path / "run.html").read_text()


def test_a_trace_is_sent_as_it_is_or_over_and_over(
    url: str, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.jsonl"
    words = ["bench", f"--url={url}", f"--trace={trace}", f"--json={out}", "--quiet"]
    assert main(words) == 0
    sent = [(line["prompt_tokens"], line["output_tokens"]) for line in lines(out, "request")]
    assert sent == [(9, 2), (5, 1), (7, 3)]
    assert main([*words, "--rate=100", "--duration=0.07"]) == 0
    assert len(lines(out, "request")) == 7
    assert main([*words, "--limit=2"]) == 0
    assert len(lines(out, "request")) == 2


def test_a_sweep_tells_the_goodput(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.jsonl"
    words = ["bench", f"--url={url}", *SHORT[:3], "--sweep=100..200", "--quiet", f"--json={out}"]
    assert main([*words, "--ttft-ms=60000"]) == 0
    assert "Goodput: 200 requests/s is the highest rate" in capsys.readouterr().out
    assert main([*words, "--ttft-ms=0.0001"]) == 0
    assert "at no rate of the sweep did 90% of" in capsys.readouterr().out
    assert [point["rate"] for point in lines(out, "point")] == [100]


def test_two_targets_in_turn(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.jsonl"
    other = url.replace("127.0.0.1", "localhost")
    words = ["bench", f"--url={url}", f"--compare={other}", *SHORT, "--rounds=3", f"--json={out}"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"A is {url} (null)" in shown
    assert f"B is {other} (null)" in shown
    assert "At 200 requests/s " in shown
    requests = lines(out, "request")
    order = [line["target"] for line in requests[::4]]
    assert order == [url, other, other, url, url, other]
    by_round = {}
    for line in requests:
        key = (line["round"], line["target"])
        by_round.setdefault(key, []).append((line["prompt_tokens"], line["output_tokens"]))
    assert all(by_round[number, url] == by_round[number, other] for number in range(3))


def test_the_same_seed_sends_the_same_prompts(url: str, tmp_path: Path) -> None:
    """What the seed is, is in the file, also where it was drawn."""
    out = tmp_path / "run.jsonl"
    seeds = []
    for words in ([], [], ["--seed=5"], ["--seed=5", "--prompt-seed=6"]):
        assert main(["bench", f"--url={url}", *SHORT, f"--json={out}", *words]) == 0
        seeds.append(lines(out, "bench")[0]["asked"]["prompt_seed"])
    assert seeds[0] != seeds[1]
    assert seeds[2:] == [5, 6]


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--url=ftp://x"], 2, "--url is 'ftp://x'; it must be a URL, such as http://"),
        (["--url=http://"], 2, "--url is 'http://'; it must be a URL"),
        (["--url=URL", "--compare=nonsense"], 2, "--compare is 'nonsense'; it must be a URL"),
        (["--router=http://x"], 2, "--router is 'http://x'; it must be host:port"),
        (["--url=URL", "--sweep=1..2", "--rate=3"], 2, "--sweep does not go with --rate"),
        (["--url=URL", "--sweep=2..1"], 2, "sweep is 2..1; it must be LOW..HIGH"),
        (["--url=URL", "--sweep=1..2", "--tolerance=0"], 2, "tolerance is 0"),
        (["--url=URL", "--sweep=1..2", "--compare=URL"], 2, "--sweep does not go with --compare"),
        (["--url=URL", "--compare=URL", "--rounds=1"], 2, "rounds is 1; it must lie in [2, 30]"),
        (["--url=URL", "--requests=3", "--duration=3"], 2, "--duration and --requests say"),
        (["--url=URL", "--duration=0"], 2, "duration is 0.0 s; it must be above 0"),
        (["--url=URL", "--duration=1e12"], 2, "are over 10,000,000"),
        (["--url=URL", "--max-in-flight=0"], 2, "max_in_flight is 0; it must be at least 1"),
        (["--url=URL", "--warmup=-1"], 2, "warmup is -1; it must be at least 0"),
        (["--url=URL", "--temperature=-1"], 2, "temperature is -1.0"),
        (["--url=URL", "--ttft-ms=0"], 2, "ttft is 0 ms; it must be above 0"),
        (["--url=URL", "--json=/no/such/folder/x"], 2, "no file can be there"),
        (["--url=URL", "--limit=3"], 2, "--limit goes with --trace"),
        (["--url=URL", "--trace=TRACE", "--requests=3"], 2, "--requests does not go with --trace"),
        (["--url=URL", "--api=chat", "--prompts=ids"], 2, "chat is text"),
        (["--router=127.0.0.1:1", "--prompts=text"], 2, "by gRPC they are ids"),
        (["--url=http://127.0.0.1:PORT/v1"], 1, "/v1: connection refused"),
        (["--router=127.0.0.1:PORT"], 1, "UNAVAILABLE: connection refused"),
        (["--url=http://no-such-host.invalid/v1"], 1, "the host has no address"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    words: list[str],
    status: int,
    text: str,
    url: str,
    trace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"URL": url, "TRACE": str(trace), "PORT": str(closed_port())}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    drawn = [] if any("--trace" in word for word in words) else ["--prompt=8", "--output=2"]
    assert main(["bench", *drawn, *words]) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert text in error


@pytest.mark.parametrize(
    "words", [["--rate=0"], ["--rate=1,x"], ["--rate="], ["--sweep=1"], ["--token-ids=5"]]
)
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--prompt=8", "--output=2", *words])
    assert ended.value.code == 2


def test_no_workload_is_said() -> None:
    assert main(["bench", "--url=http://127.0.0.1:1/v1"]) == 2


def test_when_no_request_is_answered_the_status_is_1(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", f"--url={url}", *SHORT[:4], "--warmup=0", "--quiet", "--timeout-s=1e-6"]
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "0 of 4 requests answered, 4 timed out" in shown


def test_ctrl_c_prints_what_there_is(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    processes: list[subprocess.Popen] = []
    asked: list[int] = []

    def interrupt() -> None:
        asked.append(len(asked))
        if len(asked) == 2:  # the first one finds out what the server takes
            processes[0].send_signal(signal.SIGINT)

    with serving(interrupt) as url:
        words = ["--prompt=8", "--output=3", "--arrivals=fixed", "--rate=0.01", "--requests=9"]
        command = [sys.executable, "-m", "pdserve", "bench", f"--url={url}", *words]
        processes.append(
            subprocess.Popen(
                [*command, "--warmup=0", f"--json={out}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stdout, stderr = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 130, stderr
    assert stderr == ""
    assert "1 of 1 request answered" in stdout
    assert len(lines(out, "request")) == 1


def test_progress_says_what_the_latest_requests_saw() -> None:
    nan = float("nan")
    progress = BenchProgress(Slo(ttft_s=0.1), quiet=True)
    with progress:
        progress.begin("a run", 3)
        assert progress.latest() == ""
        for ttft in (0.05, 0.07, 0.3):
            progress.seen(Record(0, "ok", "", 0, 0, ttft, ttft + 0.01, (0.01,), 8, 2, 2))
        progress.seen(Record(0, "failed", "", 0, 0, nan, nan, (), 8, 2, 0))
        assert progress.latest() == "TTFT 70 ms  TPOT 10.0 ms  met 50%"
        progress.begin("another", 3)
        assert progress.latest() == ""


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--help"])
    assert ended.value.code == 0
    assert "\n  pdserve bench --url " in capsys.readouterr().out


def test_a_bench_needs_no_torch_and_no_simulator() -> None:
    code = (
        "import sys, pdserve.cli.bench\n"
        "heavy = ('torch', 'pandas', 'numba', 'scipy', 'plotly', 'services')\n"
        "print([name for name in sys.modules if name.split('.')[0] in heavy])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


PAGE = (Path(__file__).parents[3] / "docs" / "bench.md").read_text("utf-8")


def test_the_page_knows_every_flag_and_no_other() -> None:
    parser = argparse.ArgumentParser()
    bench.add_flags(parser)
    flags = {each for action in parser._actions for each in action.option_strings if each[1] == "-"}
    # Described where other commands have them too, or by their help.
    elsewhere = {each for each in flags if each.startswith("--tls")} | {"--help", "--quiet"}
    elsewhere |= {"--trace-format", "--limit", "--lengths", "--arrivals", "--max-context"}
    elsewhere |= {"--requests", "--seed", "--output"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert flags - elsewhere <= named
    assert named - {"--threads", "--repeats"} <= flags  # of other commands


def test_the_page_knows_every_outcome_and_key(url: str, tmp_path: Path) -> None:
    assert all(f"| `{outcome}` |" in PAGE for outcome in get_args(Outcome))
    out = tmp_path / "run.jsonl"
    assert main(["bench", f"--url={url}", *SHORT, "--conversations=turns=2", f"--json={out}"]) == 0
    keys = {key for line in lines(out, "request") for key in line} - {"record"}
    keys |= {"prefix_ids", "block_tokens"}
    assert [key for key in keys if f"`{key}`" not in PAGE] == []
