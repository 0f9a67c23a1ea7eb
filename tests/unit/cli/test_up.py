import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pdserve.cli import planned_cluster, up
from pdserve.errors import ConfigError
from pdserve.planner.plan import InstancePlan, Layout, Role, Stage
from pdserve.planner.plan_file import PlanFile, write_plan
from pdserve.planner.slo import Slo

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


def test_it_says_where_the_apis_are() -> None:
    command = [sys.executable, str(SCRIPT), "up", "--port=0", "--http-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            line = next(line for line in lines if line.startswith("OpenAI API at "))
            assert re.fullmatch(r"OpenAI API at http://127\.0\.0\.1:[1-9][0-9]*/v1\n", line)
            assert next(lines).startswith("router at 127.0.0.1:")
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
    router = spec().router
    assert (router.port, router.http_port) == (up.DEFAULT_PORT, up.DEFAULT_HTTP_PORT)
    monkeypatch.setattr(up, "check_port_is_free", taken)
    router = spec().router
    assert (router.port, router.http_port) == (0, 0)


def planned(name: str, role: Role, gpus: int = 1, tokens: int = 512, seqs: int = 64):
    stage = Stage(f"node-{name}", tuple(range(gpus)))
    return InstancePlan(name, role, "core", gpus, 1, tokens, seqs, (stage,))


def written(tmp_path: Path, layout: Layout, *instances: InstancePlan) -> Path:
    path = tmp_path / "plan.yaml"
    write_plan(PlanFile("planned", Slo(0.5), None, layout, instances), path)
    return path


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A plan of three instances, two of prefill with budgets of their own."""
    return written(
        tmp_path,
        "apart",
        planned("p", "prefill", tokens=256, seqs=8),
        planned("d", "decode", tokens=1024, seqs=32),
        planned("q", "prefill", tokens=128, seqs=4),
    )


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with four cores and no GPU."""
    monkeypatch.setattr(planned_cluster, "_cuda_devices", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))


def test_a_plan_says_how_many_instances_and_how_they_batch(apart: Path) -> None:
    cluster = spec(f"--plan={apart}", "--block-size=32", "--max-attempts=2")
    assert (cluster.prefill, cluster.decode, cluster.router.colocated) == (2, 1, False)
    assert cluster.router.max_attempts == 2
    options = {name: cluster.options(name) for _, name in cluster.names()}
    assert {
        name: (each.max_batch_tokens, each.max_batch_seqs) for name, each in options.items()
    } == {"prefill-0": (256, 8), "prefill-1": (128, 4), "decode-0": (1024, 32)}
    assert {each.block_size for each in options.values()} == {32}
    assert {(each.device, each.threads) for each in options.values()} == {("cpu", 1)}


def test_colocated_instances_are_decode_instances(tmp_path: Path) -> None:
    path = written(tmp_path, "colocated-chunked", planned("x", "both"), planned("y", "both"))
    cluster = spec(f"--plan={path}")
    assert (cluster.prefill, cluster.decode, cluster.router.colocated) == (0, 2, True)


def test_a_plan_with_whole_prompts_is_started_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "colocated-whole", planned("x", "both", tokens=0))
    cluster = spec(f"--plan={path}", PDSERVE_MAX_BATCH_TOKENS="99")
    assert cluster.options("decode-0").max_batch_tokens == 99
    assert "chunks" in capsys.readouterr().err


def test_the_model_is_the_plans_unless_a_flag_names_one(apart: Path) -> None:
    for cluster, model in (
        (spec(f"--plan={apart}"), "planned"),
        (spec(f"--plan={apart}", PDSERVE_MODEL="other"), "planned"),
        (spec(f"--plan={apart}", "--model=other"), "other"),
    ):
        assert cluster.router.model == model
        assert {cluster.options(name).model for _, name in cluster.names()} == {model}


def test_a_plan_wins_over_environment_and_file(apart: Path, tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("max_batch_seqs: 5\n")
    cluster = spec(f"--plan={apart}", f"--config={config}", PDSERVE_COLOCATED="true")
    assert (cluster.prefill, cluster.router.colocated) == (2, False)
    assert cluster.options("prefill-0").max_batch_seqs == 8


@pytest.mark.parametrize(
    "flag",
    ["--prefill=2", "--decode=1", "--colocated", "--max-batch-tokens=9", "--max-batch-seqs=9"],
)
def test_flags_that_the_plan_decides_are_refused(apart: Path, flag: str) -> None:
    name = flag.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{name} does not go with --plan"):
        spec(f"--plan={apart}", flag)


def test_what_the_engine_cannot_run_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "apart", planned("p", "prefill"), planned("big", "decode", gpus=2))
    with pytest.raises(ConfigError, match=r"plan\.yaml: big has tp 2 and pp 1"):
        spec(f"--plan={path}")


def test_more_gpus_than_cores_need_threads(tmp_path: Path) -> None:
    path = written(tmp_path, "colocated-chunked", *(planned(f"x{k}", "both") for k in range(5)))
    with pytest.raises(ConfigError, match=r"plan\.yaml: the plan has 5 GPUs.*this machine: 4"):
        spec(f"--plan={path}")
    cluster = spec(f"--plan={path}", "--threads=2")
    assert {cluster.options(name).threads for _, name in cluster.names()} == {2}


def test_each_instance_gets_a_cuda_device(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_cluster, "_cuda_devices", lambda: 3)
    cluster = spec(f"--plan={apart}")
    devices = [cluster.options(name).device for name in ("prefill-0", "decode-0", "prefill-1")]
    assert devices == ["cuda:0", "cuda:1", "cuda:2"]
    assert cluster.options("decode-0").threads == 0
    shared = spec(f"--plan={apart}", "--device=cuda:1")
    assert {shared.options(name).device for _, name in shared.names()} == {"cuda:1"}
    assert spec(f"--plan={apart}", "--device=cpu").options("decode-0").device == "cpu"
    monkeypatch.setattr(planned_cluster, "_cuda_devices", lambda: 2)
    with pytest.raises(ConfigError, match="3 GPUs; CUDA devices on this machine: 2"):
        spec(f"--plan={apart}")


def test_a_plan_is_started(tmp_path: Path) -> None:
    path = written(tmp_path, "apart", planned("p", "prefill"), planned("d", "decode", tokens=300))
    with running(f"--plan={path}", "--device=cpu", "--threads=1") as process:
        assert len(psutil.Process(process.pid).children()) == 3
        words = service(process, "decode").cmdline()
        assert {"--max-batch-tokens=300", "--threads=1", "--model=planned"} <= set(words)


def test_a_wrong_plan_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("version: 9\n")
    command = [sys.executable, str(SCRIPT), "up", f"--plan={path}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {path}: version: is 9; this pdserve reads version 1\n"
