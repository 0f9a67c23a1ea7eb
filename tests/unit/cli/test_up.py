import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pdserve.cli import up
from pdserve.errors import ConfigError

SCRIPT = Path(__file__).with_name("up_with_stubs.py")


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`pdserve up` with stub services, once it has printed its addresses."""
    command = [sys.executable, str(SCRIPT), "up", "--port=0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert any(line.startswith("router at 127.0.0.1:") for line in lines)
            yield process
        finally:
            process.kill()


def service(process: subprocess.Popen[str], role: str) -> psutil.Process:
    children = psutil.Process(process.pid).children()
    return next(child for child in children if role in child.cmdline())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_stops_all_of_them(number: signal.Signals, status: int) -> None:
    with running() as process:
        children = psutil.Process(process.pid).children()
        assert len(children) == 3
        process.send_signal(number)
        assert process.wait(30) == status
        assert not [child for child in children if child.is_running()]


def test_children_do_not_outlive_a_killed_supervisor() -> None:
    with running() as process:
        children = psutil.Process(process.pid).children()
        process.kill()
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert (len(gone), alive) == (3, [])


def test_the_death_of_the_router_ends_the_rest_with_an_error() -> None:
    with running() as process:
        service(process, "router").kill()
        assert process.wait(30) == 1
        assert process.stderr is not None
        errors = process.stderr.read()
        assert "router" in errors
        assert "SIGKILL" in errors
        assert "nothing can serve any more" in errors


def test_the_death_of_one_instance_is_reported_and_the_rest_goes_on() -> None:
    with running("--decode=2") as process:
        service(process, "decode").kill()
        assert process.stderr is not None
        assert any("SIGKILL" in line for line in iter(process.stderr.readline, ""))
        assert process.poll() is None
        service(process, "decode").kill()
        assert process.wait(30) == 1


def spec(*words: str, **environ: str):
    parser = argparse.ArgumentParser()
    up.add_flags(parser)
    return up.cluster_spec(parser.parse_args(words), environ)


def test_flags_reach_instances_and_router() -> None:
    cluster = spec("--prefill=2", "--decode=3", "--block-size=32", "--max-attempts=2", "--port=7")
    assert (cluster.prefill, cluster.decode) == (2, 3)
    assert cluster.instance.block_size == 32
    assert cluster.router.max_attempts == 2
    assert cluster.router.port == 7


def test_shared_options_reach_both() -> None:
    cluster = spec("--model=other", PDSERVE_DRAIN_GRACE_S="3")
    assert cluster.instance.model == cluster.router.model == "other"
    assert cluster.instance.drain_grace_s == cluster.router.drain_grace_s == 3.0


def test_a_config_file_holds_options_of_instances(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("block_size: 8\n")
    assert spec(f"--config={path}").instance.block_size == 8
    assert spec(PDSERVE_CONFIG=str(path)).instance.block_size == 8


def test_where_the_router_listens_is_no_matter_of_the_instances() -> None:
    for cluster in (
        spec("--host=0.0.0.0", "--port=7"),
        spec(PDSERVE_HOST="0.0.0.0", PDSERVE_PORT="7"),
    ):
        assert (cluster.router.host, cluster.router.port) == ("0.0.0.0", 7)
        assert (cluster.instance.host, cluster.instance.port) == ("127.0.0.1", 0)


def test_colocated_uses_as_many_instances() -> None:
    cluster = spec("--prefill=1", "--decode=2", "--colocated")
    assert (cluster.prefill, cluster.decode) == (0, 3)
    assert cluster.router.colocated


def test_the_default_port_gives_way_when_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(host: str, port: int) -> None:
        raise ConfigError(f"port {port} is in use")

    monkeypatch.setattr(up, "check_port_is_free", lambda host, port: None)
    assert spec().router.port == up.DEFAULT_PORT
    monkeypatch.setattr(up, "check_port_is_free", taken)
    assert spec().router.port == 0
