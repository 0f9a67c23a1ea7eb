"""The membership that Kubernetes tells of, against an API server over HTTP."""

import asyncio
import gc
import logging
import random
import sys
import threading
import types
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.kubernetes_pod import reachable, read_pod
from pdserve.cluster.source import make_discovery
from pdserve.cluster.topology import Topology
from pdserve.errors import ConfigError
from tests.doubles.kube.access import Rule
from tests.doubles.kube.server import KubeServer
from tests.unit.cluster.pods import Members, members_of, node, pod

RACK = "topology.kubernetes.io/rack"
PODS, ROUNDS, CHANGES_A_ROUND = 300, 3, 60


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeServer]:
    async with KubeServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.fixture
async def members(server: KubeServer) -> AsyncIterator[Members]:
    async with members_of(make_discovery("kube:", RACK)) as members:
        yield members


def named(server: KubeServer) -> list[str]:
    return sorted(each["metadata"]["name"] for each in server.store.list("Pod"))


async def test_an_instance_is_a_pod_with_the_place_of_its_node(server):
    server.store.create("Node", node("n1", clique="c.1", rack="r1", zone="z1"))
    server.store.create("Pod", pod("p-0", "prefill", ip="10.0.0.1", node="n1"))
    server.store.create("Pod", pod("d-0", "decode", ip="fd00::2", port=7001, node="n1"))
    server.store.create("Pod", pod("d-1", "decode", ip="10.0.0.3", node="unknown"))
    async with members_of(make_discovery("kube:", RACK)) as members:
        await members.until(lambda: bool(members.now))
        place = Topology("n1", "c.1", "r1", "z1")
        assert members.now == (
            InstanceAddress(Role.DECODE, "[fd00::2]:7001", "d-0", place),
            InstanceAddress(Role.DECODE, "10.0.0.3:7000", "d-1", Topology("unknown")),
            InstanceAddress(Role.PREFILL, "10.0.0.1:7000", "p-0", place),
        )
        assert members.discovery.problem == ""


async def test_the_label_of_racks_can_be_chosen(server):
    labels = {"metadata": {"name": "n1", "labels": {"example.com/row": "7"}}}
    server.store.create("Node", labels)
    server.store.create("Pod", pod("d-0", node="n1"))
    async with members_of(make_discovery("kube:", "example.com/row")) as members:
        await members.until(lambda: bool(members.now))
        assert members.now[0].topology == Topology("n1", rack="7")


async def test_namespace_and_selector_are_those_of_the_option(server):
    server.store.create("Namespace", {"metadata": {"name": "llm"}})
    for namespace in ("default", "llm"):
        for app in ("one", "other"):
            made = pod(f"{namespace}-{app}", **{"app.kubernetes.io/instance": app})
            made["metadata"]["namespace"] = namespace
            server.store.create("Pod", made)
    selector = "app.kubernetes.io/instance=one,pdserve.io/role"
    for source, name in ((f"kube:{selector}", "default-one"), (f"kube:llm/{selector}", "llm-one")):
        async with members_of(make_discovery(source, RACK)) as members:
            await members.until(lambda: bool(members.now))
            assert members.names == [name]


async def test_what_cannot_be_reached_is_no_member(server, members):
    server.store.create("Pod", pod("router", None))
    server.store.create("Pod", pod("other", "something"))
    server.store.create("Pod", pod("pending", ip="", phase="Pending"))
    server.store.create("Pod", pod("failed", phase="Failed"))
    server.store.create("Pod", pod("no-port", port_name="rpc"))
    server.store.create("Pod", pod("good", port=7007))
    await members.until(lambda: members.names == ["good"])
    assert "no container port is named grpc in no-port" in members.discovery.problem


async def test_pods_come_and_go(server, members):
    server.store.create("Pod", pod("a", ip="", phase="Pending"))
    server.store.create("Pod", pod("b", port=7001))
    await members.until(lambda: members.names == ["b"])
    server.store.update("Pod", pod("a", port=7002))
    await members.until(lambda: members.names == ["a", "b"])
    server.store.delete("Pod", "b", grace_s=30)
    server.store.create("Pod", pod("c", port=7003))
    await members.until(lambda: "c" in members.names)
    assert members.names == ["a", "b", "c"], "an instance that drains stays"
    server.store.delete("Pod", "b")
    await members.until(lambda: members.names == ["a", "c"])


async def test_a_pod_that_changes_in_what_does_not_matter_changes_nothing(server, members):
    server.store.create("Pod", pod("a"))
    await members.until(lambda: members.names == ["a"])
    server.store.update("Pod", pod("a", example="1"))
    server.store.create("Pod", pod("b", port=7001))
    await members.until(lambda: members.names == ["a", "b"])
    assert len(members.seen) <= 3


async def test_more_pods_than_a_page_are_all_found(server):
    for index in range(1100):
        server.store.create("Pod", pod(f"p{index:04}", port=1000 + index))
    async with members_of(make_discovery("kube:", RACK)) as members:
        await members.until(lambda: members.names == named(server))
        assert len(members.seen) == 1


async def test_of_pods_with_one_address_the_newest_counts():
    manifests = [pod("new", ip="10.0.0.1"), pod("old", ip="10.0.0.1"), pod("b", ip="10.0.0.2")]
    for manifest, day in zip(manifests, (2, 1, 1), strict=True):
        manifest["metadata"]["creationTimestamp"] = f"2026-01-0{day}T00:00:00Z"
    pods = [found for each in manifests if (found := read_pod(each))]
    assert [each.name for each in reachable(pods)] == ["b", "new"]


@pytest.mark.parametrize("as_status", [True, False])
async def test_a_history_that_is_gone_is_no_loss(server, members, as_status):
    server.faults.gone_as_status = as_status
    server.store.create("Pod", pod("a"))
    await members.until(lambda: members.names == ["a"])
    await server.until_watched()
    server.drop_watches()
    server.store.create("Pod", pod("b", port=7001))
    server.store.delete("Pod", "a")
    server.expire_history()
    await members.until(lambda: members.names == ["b"])
    assert members.discovery.problem == ""


async def test_the_membership_stays_while_the_api_server_is_away(server, members):
    server.store.create("Pod", pod("a"))
    await members.until(lambda: members.names == ["a"])
    await server.until_watched()
    port = int(server.url.rpartition(":")[2])
    await server.stop()
    await members.until(lambda: "Cannot connect" in members.discovery.problem)
    server.store.create("Pod", pod("b", port=7001))
    assert members.names == ["a"]
    await server.start(port)
    await members.until(lambda: members.names == ["a", "b"])
    await members.until(lambda: members.discovery.problem == "")


async def test_a_server_that_fails_is_asked_again(server, members):
    server.faults.failing.append(Rule(verbs=("list",)))
    await members.until(lambda: "status 500" in members.discovery.problem)
    server.store.create("Pod", pod("a"))
    server.faults.failing.clear()
    await members.until(lambda: members.names == ["a"])


async def test_missing_rights_are_named_and_may_come_later(server, members):
    server.faults.refused.append(Rule(resources=("pods",)))
    server.drop_watches()
    await members.until(lambda: members.discovery.problem != "")
    assert "status 403" in members.discovery.problem
    assert "needs list and watch on pods" in members.discovery.problem
    server.store.create("Pod", pod("a"))
    server.faults.refused.clear()
    await members.until(lambda: members.names == ["a"])
    await members.until(lambda: members.discovery.problem == "")


async def test_without_rights_on_nodes_the_node_alone_is_known(server):
    server.faults.refused.append(Rule(resources=("nodes",)))
    server.store.create("Node", node("n1", zone="z1"))
    server.store.create("Pod", pod("a", node="n1"))
    server.store.create("Pod", pod("b", port=7001, node="n2"))
    async with members_of(make_discovery("kube:", RACK)) as members:
        await members.until(lambda: members.names == ["a", "b"])
        assert members.now[0].topology == Topology("n1")
        assert sum(each.resource == "nodes" for each in server.access_log) == 1


async def test_a_right_on_nodes_that_comes_later_counts_for_pods_that_come_later(
    server, monkeypatch
):
    monkeypatch.setattr("pdserve.cluster.kubernetes._FORBIDDEN_S", 0.0)
    server.faults.refused.append(Rule(resources=("nodes",)))
    server.store.create("Node", node("n1", zone="z1"))
    server.store.create("Pod", pod("a", node="n1"))
    async with members_of(make_discovery("kube:", RACK)) as members:
        await members.until(lambda: members.names == ["a"])
        server.faults.refused.clear()
        server.store.create("Pod", pod("b", port=7001, node="n1"))
        await members.until(lambda: members.names == ["a", "b"])
        # Who moved would be another instance, and what runs there would be placed anew.
        assert members.now[0].topology == Topology("n1")
        assert members.now[1].topology == Topology("n1", zone="z1")


async def test_credentials_are_read_again_when_they_are_refused(server, tmp_path, monkeypatch):
    path = server.kubeconfig(tmp_path / "rotated", user="old")
    monkeypatch.setenv("KUBECONFIG", str(path))
    server.faults.refused.append(Rule(user="old"))
    server.store.create("Pod", pod("a"))
    async with members_of(make_discovery("kube:", RACK)) as members:
        await members.until(lambda: "status 403" in members.discovery.problem)
        server.kubeconfig(path, user="new")
        await members.until(lambda: members.names == ["a"])


async def test_the_rights_that_it_needs(server, members):
    server.store.create("Node", node("n1"))
    server.store.create("Pod", pod("a", node="n1"))
    await members.until(lambda: members.names == ["a"])
    await server.until_watched()
    assert {(each.verb, each.resource) for each in server.access_log} == {
        ("list", "pods"),
        ("watch", "pods"),
        ("get", "nodes"),
    }


async def test_a_selector_that_the_server_does_not_understand_ends_it(server):
    async with members_of(make_discovery("kube:a in (", RACK)) as members:
        with pytest.raises(ConfigError, match="does not accept the selector") as raised:
            await members.until(lambda: False)
        assert raised.value.field == "instances"


@pytest.mark.parametrize("text", [None, "", "- a", "clusters: 7", "{"])
async def test_a_configuration_that_cannot_be_used_ends_it(tmp_path, monkeypatch, text):
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    async with members_of(make_discovery("kube:", RACK)) as members:
        with pytest.raises(ConfigError, match="no access to Kubernetes"):
            await members.until(lambda: False)


async def test_300_pods_that_change_50_times_a_second(server):
    """Nothing is missed or invented, whatever happens to the watches; nothing grows or stays."""
    churn = Churn(server, random.Random(7))
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    async with members_of(make_discovery("kube:", RACK)) as members:
        sizes = []
        for _ in range(ROUNDS):
            await churn.round()
            await members.until(lambda: [(m.name, m.address) for m in members.now] == churn.truth)
            assert not set().union(*map(set, members.seen)) - churn.ever
            del members.seen[:-1]
            sizes.append(held_bytes(members.discovery))
        assert max(sizes) < 1.1 * min(sizes), sizes
    async with asyncio.timeout(10):
        await server.until_watched(0)
        while asyncio.all_tasks() != tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # What is left are those of the event loop, for anything that blocks.
    new = set(threading.enumerate()) - threads
    assert [each.name for each in new if not each.name.startswith("asyncio_")] == []


def held_bytes(root: object) -> int:
    """What `root` and all that it refers to take, but for types, functions and modules."""
    shared = (type, types.ModuleType, types.FunctionType, logging.Logger)
    seen, left = {id(root)}, [root]
    for found in left:
        for each in gc.get_referents(found):
            if id(each) not in seen and not isinstance(each, shared):
                seen.add(id(each))
                left.append(each)
    return sum(map(sys.getsizeof, left))


class Churn:
    """Pods that come, change and go, and an API server that has a bad day."""

    def __init__(self, server: KubeServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._made = 0
        self.ever: set[InstanceAddress] = set()
        for index in range(20):
            server.store.create("Node", node(f"n{index}", zone=f"z{index % 3}"))
        for _ in range(PODS):
            self._create()

    @property
    def truth(self) -> list[tuple[str, str]]:
        """Name and address of each pod that the server has."""
        return [
            (each["metadata"]["name"], f"127.0.0.1:{_port(each)}")
            for each in self._server.store.list("Pod")
        ]

    async def round(self) -> None:
        """A second or so of changes, in which watches break and the history is lost."""
        faults = [self._server.drop_watches, self._reset, self._server.expire_history, self._gone]
        at = {self._rng.randrange(CHANGES_A_ROUND): fault for fault in faults}
        for index in range(CHANGES_A_ROUND):
            self._rng.choice((self._replace, self._touch, self._replace))()
            if index in at:
                at[index]()
            await asyncio.sleep(0.02)

    def _reset(self) -> None:
        self._server.drop_watches(reset=True)

    def _gone(self) -> None:
        self._server.faults.gone_as_status = not self._server.faults.gone_as_status
        self._server.drop_watches()
        self._server.expire_history()

    def _create(self) -> None:
        index, self._made = self._made, self._made + 1
        role = self._rng.choice(("prefill", "decode"))
        name, on = f"p{index:05}", self._rng.randrange(20)
        self._server.store.create("Pod", pod(name, role, port=1000 + index, node=f"n{on}"))
        place = Topology(f"n{on}", zone=f"z{on % 3}")
        address = f"127.0.0.1:{1000 + index}"
        self.ever.add(InstanceAddress(Role(role), address, name, place))

    def _replace(self) -> None:
        self._server.store.delete("Pod", self._rng.choice(self.truth)[0])
        self._create()

    def _touch(self) -> None:
        name = self._rng.choice(self.truth)[0]
        found = self._server.store.get("Pod", name)
        labels = {**found["metadata"]["labels"], "touched": str(self._rng.random())}
        self._server.store.update(
            "Pod", {**found, "metadata": {**found["metadata"], "labels": labels}}
        )


def _port(manifest: dict) -> int:
    return manifest["spec"]["containers"][0]["ports"][1]["containerPort"]
