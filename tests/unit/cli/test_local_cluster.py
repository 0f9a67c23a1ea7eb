import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from stub_command import stub_command

from pdserve.cli import local_cluster
from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.cli.service_process import State
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError, UnavailableError


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(local_cluster, "command", stub_command)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = psutil.Process().children()  # torch and multiprocessing keep helpers of their own
    yield
    assert not list(tmp_path.iterdir()), "a temporary folder was left"
    assert not set(psutil.Process().children()) - set(before), "a child was left"


async def test_every_process_serves_until_the_cluster_stops() -> None:
    async with LocalCluster(ClusterSpec(prefill=2, decode=1)) as cluster:
        assert list(cluster.processes) == ["prefill-0", "prefill-1", "decode-0", "router"]
        assert {each.state for each in cluster.processes.values()} == {State.SERVING}
        assert len(set(cluster.addresses.values())) == 4
        assert len(set(cluster.pids.values())) == 4
        assert cluster.router_address == cluster.addresses["router"]
        assert all(each.facts["incarnation"] for each in cluster.processes.values())
        processes = cluster.processes
    assert {each.state for each in processes.values()} == {State.EXITED}
    assert {each.return_code for each in processes.values()} == {0}


async def test_instances_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    async with LocalCluster(ClusterSpec(prefill=1, decode=2)) as cluster:
        assert cluster.processes["decode-1"].stderr_tail[0].startswith("threads=2 ")


async def test_an_instance_may_differ() -> None:
    spec = ClusterSpec(
        1, 2, InstanceConfig(threads=3), differing={"decode-1": InstanceConfig(threads=5)}
    )
    async with LocalCluster(spec) as cluster:
        threads = {
            name: cluster.processes[name].stderr_tail[0].split()[0] for _, name in spec.names()
        }
    assert threads == {"prefill-0": "threads=3", "decode-0": "threads=3", "decode-1": "threads=5"}


def test_who_differs_must_be_there() -> None:
    with pytest.raises(ConfigError, match="there is no instance decode-1"):
        ClusterSpec(differing={"decode-1": InstanceConfig()})


async def test_what_the_environment_sets_does_not_reach_the_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PDSERVE_THREADS", "7")
    spec = ClusterSpec(instance=InstanceConfig(threads=3))
    async with LocalCluster(spec) as cluster:
        environ = psutil.Process(cluster.pids["decode-0"]).environ()
        assert "PDSERVE_THREADS" not in environ


async def test_a_killed_process_comes_back_on_its_address() -> None:
    async with LocalCluster(ClusterSpec()) as cluster:
        address, pid = cluster.addresses["prefill-0"], cluster.pids["prefill-0"]
        await cluster.kill("prefill-0")
        assert cluster.processes["prefill-0"].state is State.EXITED
        assert "SIGKILL" in cluster.processes["prefill-0"].obituary()
        await cluster.restart("prefill-0")
        assert cluster.processes["prefill-0"].state is State.SERVING
        assert cluster.addresses["prefill-0"] == address
        assert cluster.pids["prefill-0"] != pid


async def test_a_stopped_process_is_stopped_like_the_others() -> None:
    async with LocalCluster(ClusterSpec()) as cluster:
        cluster.signal("decode-0", signal.SIGSTOP)
        process = cluster.processes["decode-0"]
    assert process.return_code == 0


async def test_who_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_FAULT", "deaf")
    cluster = LocalCluster(ClusterSpec())
    await cluster.start()
    await cluster.stop(grace_s=0.2)
    assert {each.return_code for each in cluster.processes.values()} == {-signal.SIGKILL}


async def test_a_process_that_dies_while_starting_is_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUB_FAULT", "dies:decode-0")
    with pytest.raises(UnavailableError, match=r"(?s)decode-0 .*status 1.*model 'x' not found"):
        await LocalCluster(ClusterSpec()).start()


async def test_starting_has_a_deadline() -> None:
    with pytest.raises(UnavailableError, match="not up after"):
        await LocalCluster(ClusterSpec(start_timeout_s=0.05)).start()


async def test_a_port_in_use_is_named() -> None:
    async with LocalCluster(ClusterSpec()) as cluster:
        port = int(cluster.router_address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use"):
            await LocalCluster(ClusterSpec(router=RouterConfig(port=port))).start()


@pytest.mark.parametrize(("prefill", "decode"), [(1, 0), (-1, 1), (65, 1)])
def test_impossible_sizes_are_refused(prefill: int, decode: int) -> None:
    with pytest.raises(ConfigError, match="must lie in"):
        ClusterSpec(prefill=prefill, decode=decode)
