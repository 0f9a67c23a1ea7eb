"""Patches of the test API server do what their standards say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.kube.applying import applied
from tests.doubles.kube.errors import ApiError
from tests.doubles.kube.ownership import Manager, credited, leaves_of, managers_of, with_managers
from tests.doubles.kube.patching import json_patch, merge_patch, strategic_merge_patch

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)
TEMPLATE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one", "labels": {"app": "one"}},
    "spec": {"containers": [{"name": "main", "image": "a", "env": [{"name": "A", "value": "1"}]}]},
}


@pytest.mark.parametrize(
    ("present", "patch", "wanted"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_of_rfc_7396(present, patch, wanted):
    assert merge_patch(present, patch) == wanted


@pytest.mark.parametrize(
    ("present", "operation", "wanted"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": 1}, {"foo": "bar", "baz": 1}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a/b": 1}, {"op": "replace", "path": "/a~1b", "value": 2}, {"a/b": 2}),
        ({"a": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"b": 1}),
        ({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": [1], "b": [1]}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_json_patches_of_rfc_6902(present, operation, wanted):
    assert json_patch(present, [operation]) == wanted


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nothing"},
        {"op": "replace", "path": "/a/7", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "make", "path": "/a"},
        {"path": "/a"},
    ],
)
def test_a_json_patch_that_does_not_apply_changes_nothing(operation):
    present = {"a": [1]}
    with pytest.raises(ApiError, match="does not apply"):
        json_patch(present, [{"op": "add", "path": "/b", "value": 1}, operation])
    assert present == {"a": [1]}


@given(values, values)
def test_a_merge_patch_is_idempotent(present, patch):
    once = merge_patch(present, patch)
    assert merge_patch(once, patch) == once


def test_a_strategic_patch_merges_lists_by_key():
    patch = {"spec": {
        "$setElementOrder/containers": [{"name": "side"}, {"name": "main"}],
        "containers": [
            {"name": "main", "env": [{"name": "A", "$patch": "delete"}, {"name": "B"}]},
            {"name": "side", "image": "b"},
        ],
    }}  # fmt: skip
    patched = strategic_merge_patch(TEMPLATE, patch)["spec"]["containers"]
    assert patched == [
        {"name": "side", "image": "b"},
        {"name": "main", "image": "a", "env": [{"name": "B"}]},
    ]


def test_a_strategic_patch_merges_sets_and_replaces_other_lists():
    present = {
        "metadata": {"finalizers": ["a", "b"]},
        "spec": {"args": ["x"], "strategy": {"a": 1}},
    }
    patch = {
        "metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]},
        "spec": {"args": ["y"], "strategy": {"$retainKeys": ["b"], "b": 2}},
    }
    assert strategic_merge_patch(present, patch) == {
        "metadata": {"finalizers": ["b", "c"]},
        "spec": {"args": ["y"], "strategy": {"b": 2}},
    }


def stated(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}


def test_what_is_applied_no_more_goes():
    helm = Manager("helm", "Apply")
    live = credited(None, TEMPLATE, helm)
    without = {**TEMPLATE, "spec": {"containers": [{"name": "main", "image": "a"}]}}
    found = applied(live, without, helm, force=False)
    assert found["spec"] == without["spec"]
    assert found["metadata"]["labels"] == {"app": "one"}


def test_what_others_own_stays():
    helm, hand = Manager("helm", "Apply"), Manager("hand", "Update")
    live = credited(None, stated(a=1, b=2), helm)
    touched = credited(live, {**live, "spec": {"a": 1, "b": 2, "c": 3}}, hand)
    found = applied(touched, stated(a=1), helm, force=False)
    assert found["spec"] == {"a": 1, "c": 3}


def test_a_field_of_another_is_taken_by_force_only():
    helm, hand = Manager("helm", "Apply"), Manager("hand", "Update")
    live = credited(None, stated(replicas=1), helm)
    scaled = credited(live, {**live, "spec": {"replicas": 4}}, hand)
    with pytest.raises(ApiError, match=r'conflict with "hand" using v1: \.spec\.replicas'):
        applied(scaled, stated(replicas=2), helm, force=False)
    found = applied(scaled, stated(replicas=2), helm, force=True)
    assert found["spec"] == {"replicas": 2}
    assert [manager.name for manager in managers_of(found)] == ["helm"]


def test_applying_the_same_value_shares_the_field():
    helm, other = Manager("helm", "Apply"), Manager("other", "Apply")
    live = credited(None, stated(a=1), helm)
    shared = applied(live, stated(a=1), other, force=False)
    assert applied(shared, stated(), helm, force=False)["spec"] == {"a": 1}


def test_owners_survive_being_written_down():
    paths = frozenset(leaves_of(TEMPLATE))
    written = with_managers(TEMPLATE, [Manager("helm", "Apply", "", paths, "2026-01-01T00:00:00Z")])
    (found,) = managers_of(written)
    assert found.paths == paths
