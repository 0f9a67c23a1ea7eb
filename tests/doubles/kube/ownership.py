"""Who wrote which field: `metadata.managedFields`, which server-side apply decides by.

A path is the steps that a fieldsV1 document nests: `f:NAME` for a field, `k:{…}` for the item of a
list that is a map, `v:…` for a value of a set. The path of such an item itself is a leaf too.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.doubles.kube.listkeys import Names, is_set, key_of, keys_of
from tests.doubles.kube.store import Manifest, now

Path = tuple[str, ...]
Leaves = dict[Path, Any]

# What the server itself writes, and what names an object, belongs to nobody.
UNOWNED = ("apiVersion", "kind")
UNOWNED_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generateName",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manager:
    """Fields that one client wrote by one kind of request (`Apply` or `Update`)."""

    name: str
    operation: str
    subresource: str = ""
    paths: frozenset[Path] = frozenset()
    time: str = ""

    def same(self, other: "Manager") -> bool:
        """Whether both are the same client and kind of request."""
        return (self.name, self.operation, self.subresource) == (
            other.name,
            other.operation,
            other.subresource,
        )


def leaves_of(manifest: Manifest) -> Leaves:
    """Every field that somebody can own, with its value."""
    owned = {field: value for field, value in manifest.items() if field not in UNOWNED}
    metadata = owned.pop("metadata", {})
    owned["metadata"] = {k: v for k, v in metadata.items() if k not in UNOWNED_METADATA}
    return dict(_leaves(owned, (), ()))


def _leaves(value: Any, path: Path, names: Names) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for field, inner in value.items():
            yield from _leaves(inner, (*path, f"f:{field}"), (*names, field))
    elif isinstance(value, list) and value and is_set(names):
        yield from (((*path, f"v:{json.dumps(item)}"), item) for item in value)
    elif isinstance(value, list) and value and (keys := keys_of(names, value)):
        for item in value:
            inside = (*path, item_step(item, keys))
            yield inside, None
            yield from _leaves(item, inside, names)
    elif path != ("f:metadata",):
        yield path, value


def item_step(item: dict[str, Any], keys: Names) -> str:
    """The step to that item of a list."""
    key = dict(zip(keys, key_of(item, keys), strict=True))
    return f"k:{json.dumps(key, sort_keys=True, separators=(',', ':'))}"


def managers_of(manifest: Manifest) -> list[Manager]:
    """Who owns what, as the object says."""
    return [
        Manager(
            entry.get("manager", ""),
            entry["operation"],
            entry.get("subresource", ""),
            frozenset(_paths(entry.get("fieldsV1", {}), ())),
            entry.get("time", ""),
        )
        for entry in manifest["metadata"].get("managedFields") or ()
    ]


def _paths(fields: dict[str, Any], path: Path) -> Iterator[Path]:
    if not fields and path:
        yield path
    for step, inner in fields.items():
        if step == ".":
            yield path
        else:
            yield from _paths(inner, (*path, step))


def with_managers(manifest: Manifest, managers: Iterable[Manager]) -> Manifest:
    """The object with these owners; those that own nothing are left out."""
    entries = []
    for manager in managers:
        if manager.paths:
            entry = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": manifest["apiVersion"],
                "time": manager.time or now(),
                "fieldsType": "FieldsV1",
                "fieldsV1": _fields_v1(manager.paths),
            }
            entries.append(entry | _subresource(manager))
    return {**manifest, "metadata": {**manifest["metadata"], "managedFields": entries}}


def _subresource(manager: Manager) -> dict[str, str]:
    return {"subresource": manager.subresource} if manager.subresource else {}


def _fields_v1(paths: Collection[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in sorted(paths):
        inner = root
        for step in path:
            inner = inner.setdefault(step, {})
        # The item itself, besides its fields, which sort behind it.
        if path[-1].startswith("k:"):
            inner["."] = {}
    return root


def credited(old: Manifest | None, new: Manifest, writer: Manager) -> Manifest:
    """The new object, where the writer owns all that it changed and nobody what is gone."""
    before, after = leaves_of(old) if old else {}, leaves_of(new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    managers = managers_of(old) if old else []
    if not any(manager.same(writer) for manager in managers):
        managers.append(writer)
    updated = []
    for manager in managers:
        kept = manager.paths - changed
        if manager.same(writer):
            kept |= changed
        kept &= after.keys()
        time = manager.time if kept == manager.paths else ""
        updated.append(replace(manager, paths=kept, time=time))
    return with_managers(new, updated)
