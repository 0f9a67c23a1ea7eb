"""The test API server as the real Python client sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.incluster_config import InClusterConfigLoader

from tests.doubles.kube.access import Access, Rule
from tests.doubles.kube.server import KubeServer


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer(history_limit=20) as server:
        yield server


@pytest.fixture
def core(server: KubeServer) -> client.CoreV1Api:
    configuration = client.Configuration(host=server.url)
    configuration.retries = False
    configuration.api_key = {"authorization": "Bearer someone"}
    return client.CoreV1Api(client.ApiClient(configuration))


def pod(name: str, node: str = "", **labels: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": "none"}], "nodeName": node}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


class Watched:
    """Events of a watch in a thread of its own, one at a time."""

    def __init__(self, core: client.CoreV1Api, **arguments: Any) -> None:
        stream = watch.Watch().stream
        self._events = stream(core.list_namespaced_pod, "default", timeout_seconds=20, **arguments)

    async def next(self) -> tuple[str, str]:
        """The type of the next event and the name of its object; `end` after the last."""
        event = await asyncio.to_thread(next, self._events, None)
        if event is None:
            return ("END", "")
        found = event["raw_object"]
        return (event["type"], found["metadata"].get("name", ""))


async def test_an_object_is_created_read_changed_and_deleted(server, core):
    made = await asyncio.to_thread(core.create_namespaced_pod, "default", pod("one", app="x"))
    assert made.metadata.uid
    assert made.metadata.creation_timestamp.tzinfo is not None
    made.metadata.labels["app"] = "y"
    changed = await asyncio.to_thread(core.replace_namespaced_pod, "one", "default", made)
    assert changed.metadata.resource_version != made.metadata.resource_version
    read = await asyncio.to_thread(core.read_namespaced_pod, "one", "default")
    assert read.metadata.labels == {"app": "y"}
    await asyncio.to_thread(core.delete_namespaced_pod, "one", "default")
    with pytest.raises(ApiException, match='pods \\\\"one\\\\" not found') as refused:
        await asyncio.to_thread(core.read_namespaced_pod, "one", "default")
    assert refused.value.status == 404


async def test_a_change_of_an_old_version_is_a_conflict(server, core):
    made = server.store.create("Pod", pod("one", app="x"))
    server.store.update("Pod", {**made, "metadata": {**made["metadata"], "labels": {}}})
    with pytest.raises(ApiException, match="has been modified") as refused:
        await asyncio.to_thread(core.replace_namespaced_pod, "one", "default", made)
    assert refused.value.status == 409


async def test_status_is_written_on_its_own(server, core):
    made = server.store.create("Pod", pod("one"))
    running = {**made, "spec": pod("one", "node")["spec"], "status": {"phase": "Running"}}
    await asyncio.to_thread(core.replace_namespaced_pod_status, "one", "default", running)
    failed = pod("one") | {"status": {"phase": "Failed"}}
    await asyncio.to_thread(core.replace_namespaced_pod, "one", "default", failed)
    stored = server.store.get("Pod", "one")
    assert stored["status"] == {"phase": "Running"}
    assert not stored["spec"]["nodeName"]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=x", ["a", "b"]),
        ("app==x,tier!=front", ["b"]),
        ("app!=x", ["c", "d"]),
        ("app in (x, y),tier", ["a", "c"]),
        ("app notin (x)", ["c", "d"]),
        ("!app", ["d"]),
        ("pdserve.io/role", ["d"]),
    ],
)
async def test_labels_select(server, core, selector, names):
    for name, labels in {
        "a": {"app": "x", "tier": "front"},
        "b": {"app": "x"},
        "c": {"app": "y", "tier": "back"},
        "d": {"pdserve.io/role": "decode"},
    }.items():
        server.store.create("Pod", pod(name, **labels))
    listed = await asyncio.to_thread(core.list_namespaced_pod, "default", label_selector=selector)
    assert [found.metadata.name for found in listed.items] == names


async def test_a_selector_that_cannot_be_read_is_refused(core):
    with pytest.raises(ApiException, match="unable to parse requirement") as refused:
        await asyncio.to_thread(core.list_pod_for_all_namespaces, label_selector="a=(b")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "query", ["limit=x", "watch=1&resourceVersion=-1", "watch=1&timeoutSeconds=1e3"]
)
async def test_a_number_that_is_none_is_refused(server, query):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/api/v1/pods?{query}") as response,
    ):
        assert response.status == 400
        assert "is no number" in (await response.json())["message"]


async def test_fields_select(server, core):
    for name, node in (("a", "one"), ("b", "two")):
        server.store.create("Pod", pod(name, node))
    listed = await asyncio.to_thread(
        core.list_pod_for_all_namespaces, field_selector="spec.nodeName=two"
    )
    assert [found.metadata.name for found in listed.items] == ["b"]
    with pytest.raises(ApiException, match="field label not supported"):
        await asyncio.to_thread(core.list_pod_for_all_namespaces, field_selector="spec.x=two")


async def test_a_list_in_parts_is_the_list_as_it_was(server, core):
    for index in range(5):
        server.store.create("Pod", pod(f"p{index}"))
    first = await asyncio.to_thread(core.list_namespaced_pod, "default", limit=2)
    assert first.metadata.remaining_item_count == 3
    server.store.delete("Pod", "p4")
    rest = await asyncio.to_thread(
        core.list_namespaced_pod, "default", limit=3, _continue=first.metadata._continue
    )
    assert [found.metadata.name for found in rest.items] == ["p2", "p3", "p4"]
    assert rest.metadata.resource_version == first.metadata.resource_version


async def test_a_list_that_was_forgotten_is_not_gone_on_with(server, core):
    for index in range(3):
        server.store.create("Pod", pod(f"p{index}"))
    first = await asyncio.to_thread(core.list_namespaced_pod, "default", limit=2)
    server.expire_history()
    with pytest.raises(ApiException) as refused:
        await asyncio.to_thread(
            core.list_namespaced_pod, "default", _continue=first.metadata._continue
        )
    assert refused.value.status == 410


async def test_a_watch_goes_on_from_the_version_of_a_list(server, core):
    server.store.create("Pod", pod("before"))
    listed = await asyncio.to_thread(core.list_namespaced_pod, "default")
    server.store.create("Pod", pod("meanwhile"))
    watched = Watched(core, resource_version=listed.metadata.resource_version)
    assert await watched.next() == ("ADDED", "meanwhile")
    made = server.store.get("Pod", "before")
    server.store.update("Pod", {**made, "status": {"phase": "Running"}})
    assert await watched.next() == ("MODIFIED", "before")
    server.store.delete("Pod", "before")
    assert await watched.next() == ("DELETED", "before")
    server.drop_watches()
    await server.until_watched(0)


async def test_a_watch_without_a_version_begins_with_what_is_there(server, core):
    server.store.create("Pod", pod("before"))
    watched = Watched(core)
    assert await watched.next() == ("ADDED", "before")


async def test_an_object_that_leaves_a_selection_is_deleted_to_its_watch(server, core):
    made = server.store.create("Pod", pod("one", app="x"))
    watched = Watched(core, label_selector="app=x")
    assert await watched.next() == ("ADDED", "one")
    left = server.store.update("Pod", {**made, "metadata": {"name": "one", "labels": {}}})
    assert await watched.next() == ("DELETED", "one")
    server.store.update("Pod", {**left, "metadata": {"name": "one", "labels": {"app": "x"}}})
    assert await watched.next() == ("ADDED", "one")


async def test_a_bookmark_tells_the_present_version(server, core):
    watched = Watched(core, allow_watch_bookmarks=True, resource_version=str(server.store.version))
    events = asyncio.create_task(watched.next())
    await server.until_watched()
    server.store.create("ConfigMap", {"metadata": {"name": "other"}})
    server.send_bookmarks()
    assert await events == ("BOOKMARK", "")


async def test_a_version_that_is_too_old_is_an_error_event(server, core):
    first = server.store.create("Pod", pod("first"))["metadata"]["resourceVersion"]
    for index in range(25):
        server.store.create("Pod", pod(f"p{index}"))
    # Without a deserialisation of its own the client reports what it got.
    raw = await asyncio.to_thread(
        core.list_namespaced_pod, "default", watch=True, resource_version=first,
        _preload_content=False,
    )  # fmt: skip
    line = await asyncio.to_thread(raw.readline)
    assert b'"type":"ERROR"' in line
    assert b'"code":410' in line
    with pytest.raises(ApiException) as gone:
        await Watched(core, resource_version=first).next()
    assert gone.value.status == 410


async def test_a_version_that_is_too_old_may_be_a_status(server, core):
    version = str(server.store.version)
    server.expire_history()
    server.faults.gone_as_status = True
    with pytest.raises(ApiException) as gone:
        await Watched(core, resource_version=version).next()
    assert gone.value.status == 410


async def test_a_live_watch_outlives_the_history(server, core):
    watched = Watched(core, resource_version=str(server.store.version))
    event = asyncio.create_task(watched.next())
    await server.until_watched()
    server.expire_history()
    server.store.create("Pod", pod("late"))
    assert await event == ("ADDED", "late")


async def test_a_dropped_watch_ends_or_breaks(server, core):
    version = str(server.store.version)
    for reset in (False, True):
        raw = await asyncio.to_thread(
            core.list_namespaced_pod, "default", watch=True, resource_version=version,
            _preload_content=False,
        )  # fmt: skip
        await server.until_watched()
        server.drop_watches(reset=reset)
        if reset:
            with pytest.raises(Exception, match="Connection"):
                await asyncio.to_thread(raw.read)
        else:
            assert await asyncio.to_thread(raw.read) == b""


async def test_a_watch_that_its_client_left_is_forgotten(server, core):
    raw = await asyncio.to_thread(
        core.list_namespaced_pod, "default", watch=True, _preload_content=False
    )
    await server.until_watched()
    raw.close()
    raw.connection and raw.connection.close()
    core.api_client.rest_client.pool_manager.clear()
    await server.until_watched(0)


async def test_a_pod_on_a_node_terminates_before_it_goes(server, core):
    server.store.create("Pod", pod("one", "node"))
    watched = Watched(core, resource_version=str(server.store.version))
    await asyncio.to_thread(core.delete_namespaced_pod, "one", "default")
    assert await watched.next() == ("MODIFIED", "one")
    marked = server.store.get("Pod", "one")["metadata"]
    assert marked["deletionGracePeriodSeconds"] == 30
    assert marked["deletionTimestamp"]
    server.store.delete("Pod", "one")
    assert await watched.next() == ("DELETED", "one")


async def test_finalizers_keep_an_object_until_they_are_gone(server):
    held = pod("one")
    held["metadata"]["finalizers"] = ["pdserve.io/test"]
    server.store.create("Pod", held)
    marked = server.store.delete("Pod", "one")
    assert server.store.get("Pod", "one") == marked
    server.store.update("Pod", {**marked, "metadata": {**marked["metadata"], "finalizers": []}})
    assert server.store.list("Pod") == []


async def test_a_namespace_must_exist_and_takes_its_objects_along(server, core):
    with pytest.raises(ApiException, match='namespaces \\\\"team\\\\" not found'):
        await asyncio.to_thread(core.create_namespaced_pod, "team", pod("one"))
    server.store.create("Namespace", {"metadata": {"name": "team"}})
    await asyncio.to_thread(core.create_namespaced_pod, "team", pod("one"))
    server.store.create("Pod", pod("other"))
    await asyncio.to_thread(core.delete_namespace, "team")
    assert [found["metadata"]["name"] for found in server.store.list("Pod")] == ["other"]


async def test_every_request_is_in_the_log(server, core):
    await asyncio.to_thread(core.create_namespaced_pod, "default", pod("one"))
    await asyncio.to_thread(core.list_node)
    await asyncio.to_thread(core.read_namespaced_pod_status, "one", "default")
    await asyncio.to_thread(core.delete_collection_namespaced_pod, "default")
    assert server.access_log == [
        Access("someone", "create", "", "pods", "default", ""),
        Access("someone", "list", "", "nodes", "", ""),
        Access("someone", "get", "", "pods/status", "default", "one"),
        Access("someone", "deletecollection", "", "pods", "default", ""),
    ]


async def test_what_is_refused_or_fails_says_so(server, core):
    server.faults.refused.append(Rule(verbs=("list", "watch"), resources=("nodes",)))
    with pytest.raises(ApiException, match='User \\\\"someone\\\\" cannot list') as refused:
        await asyncio.to_thread(core.list_node)
    assert refused.value.status == 403
    await asyncio.to_thread(core.list_namespaced_pod, "default")
    server.faults.failing.append(Rule(resources=("pods",)))
    with pytest.raises(ApiException) as failed:
        await asyncio.to_thread(core.list_namespaced_pod, "default")
    assert failed.value.status == 500


async def test_a_pod_reaches_the_server_by_its_service_account(tmp_path):
    async with KubeServer(tls=True) as server:
        environment = server.service_account(tmp_path, "router")
        loader = InClusterConfigLoader(
            token_filename=tmp_path / "token",
            cert_filename=tmp_path / "ca.crt",
            environ=environment,
        )
        configuration = client.Configuration()
        loader.load_and_set(configuration)
        core = client.CoreV1Api(client.ApiClient(configuration))
        with pytest.raises(ApiException, match="system:serviceaccount:default:router") as refused:
            await asyncio.to_thread(core.list_namespaced_pod, "default")
        assert refused.value.status == 403
