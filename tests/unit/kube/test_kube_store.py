"""Whatever happens, a list and the events after it are what is there."""

import asyncio
from contextlib import aclosing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.kube.resources import Resources
from tests.doubles.kube.selectors import label_predicate
from tests.doubles.kube.store import Store
from tests.doubles.kube.watching import OpenWatches, Watch

SELECTED = label_predicate("app=x")
changes = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y"]), st.sampled_from(["put", "drop"])
)


def change(store: Store, name: str, label: str, what: str) -> None:
    """Makes the pod as it is wished, whatever it was before."""
    manifest = {"metadata": {"name": name, "labels": {"app": label}}}
    match what, store.has("Pod", name):
        case "put", False:
            store.create("Pod", manifest)
        case "put", True:
            store.update("Pod", manifest)
        case "drop", True:
            store.delete("Pod", name)


def selected(store: Store) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in store.list("Pod") if SELECTED(found)}


async def events_after(store: Store, version: int) -> list[dict[str, Any]]:
    """Everything up to now that a watch from that version is told; ends with its bookmark."""
    pods = store.resources.of_kind("Pod")
    watch = Watch(store, pods, "default", SELECTED, bookmarks=True, bookmark_interval_s=60)
    watch.bookmark()
    told = []
    async with aclosing(watch.events(version, 60, OpenWatches())) as events:
        async for event in events:
            told.append(event)
            if event["type"] == "BOOKMARK":
                break
    return told


@given(st.lists(changes, max_size=12), st.lists(changes, max_size=12))
def test_a_list_and_its_events_are_what_is_there(before, after):
    store = Store(Resources())
    for step in before:
        change(store, *step)
    known, version = selected(store), store.version
    for step in after:
        change(store, *step)
    *events, bookmark = asyncio.run(events_after(store, version))
    assert bookmark["object"]["metadata"]["resourceVersion"] == str(store.version)
    for event in events:
        name = event["object"]["metadata"]["name"]
        assert (name in known) is (event["type"] != "ADDED")
        if event["type"] == "DELETED":
            del known[name]
        else:
            known[name] = event["object"]
        seen = int(event["object"]["metadata"]["resourceVersion"])
        assert seen > version
        version = seen
    assert known == selected(store)


@given(st.lists(changes, min_size=1, max_size=30), st.integers(1, 5))
def test_a_version_is_known_until_it_is_forgotten_and_never_half(steps, limit):
    store = Store(Resources(), history_limit=limit)
    start = store.version
    for step in steps:
        change(store, *step)
    events = asyncio.run(events_after(store, start))
    if store.version - start > limit:
        assert [event["object"]["code"] for event in events] == [410]
    else:
        assert all(event["type"] != "ERROR" for event in events)
