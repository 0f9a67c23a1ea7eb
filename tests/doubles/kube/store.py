"""The objects of the API: versions, conflicts, deletion, and what changed when.

Objects that the store gave out are never changed by it, and callers must not change them either.
To be used in the server's event loop only.
"""

import asyncio
import copy
import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.doubles.kube.errors import already_exists, conflict, invalid, not_found
from tests.doubles.kube.history import Change, History
from tests.doubles.kube.resources import Resource, Resources

Manifest = dict[str, Any]
Key = tuple[str, str]

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
# Set once, by the store.
FIXED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at_version(manifest: Manifest, version: int) -> Manifest:
    """The object as it was last, under the version of its removal."""
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}}


class Store:
    """Every object of the given resources, under one sequence of versions as in etcd.

    `history_limit` is how many changes of each resource a watch can go back. Methods take the kind
    ("Pod") or the resource, and raise ApiError as the API would.
    """

    def __init__(self, resources: Resources, history_limit: int = 1000) -> None:
        self.resources = resources
        self.version = 0
        self._objects: dict[Resource, dict[Key, Manifest]] = {r: {} for r in resources}
        self._histories = {resource: History(history_limit) for resource in resources}
        self._suffixes = itertools.count(1)
        for name in NAMESPACES:
            status = {"phase": "Active"}
            self.create("Namespace", {"metadata": {"name": name}, "status": status})

    def history(self, kind: str | Resource) -> History:
        """What happened to the objects of this kind."""
        return self._histories[self._resource(kind)]

    def forget_history(self) -> None:
        """Makes every version but the present one too old to watch from."""
        self.version += 1
        for history in self._histories.values():
            history.forget(self.version)

    def has(self, kind: str | Resource, name: str, namespace: str = "default") -> bool:
        """Whether there is an object of that name."""
        resource = self._resource(kind)
        return self._key(resource, name, namespace) in self._objects[resource]

    def get(self, kind: str | Resource, name: str, namespace: str = "default") -> Manifest:
        """The object of that name."""
        resource = self._resource(kind)
        found = self._objects[resource].get(self._key(resource, name, namespace))
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return found

    def list(self, kind: str | Resource, namespace: str = "") -> list[Manifest]:
        """All objects of the kind, or those of one namespace, by namespace and name."""
        objects = self._objects[self._resource(kind)]
        return [objects[key] for key in sorted(objects) if namespace in ("", key[0])]

    def create(
        self, kind: str | Resource, manifest: Manifest, *, dry_run: bool = False
    ) -> Manifest:
        """Adds an object; apiVersion, kind and namespace `default` are filled in."""
        resource = self._resource(kind)
        made = self._complete(resource, manifest)
        metadata = made["metadata"]
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{next(self._suffixes):05x}"
        if not metadata.get("name"):
            raise invalid(resource.kind, "", "metadata.name", "Required value: name is required")
        namespace = metadata.get("namespace", "")
        if resource.namespaced:
            self.get("Namespace", namespace)
        if (namespace, metadata["name"]) in self._objects[resource]:
            raise already_exists(resource.plural, resource.group, metadata["name"])
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if "spec" in made:
            metadata["generation"] = 1
        return made if dry_run else self._commit(resource, None, made)

    def update(
        self, kind: str | Resource, manifest: Manifest, *, dry_run: bool = False
    ) -> Manifest:
        """Replaces an object; a version in the manifest must be the present one.

        An object that is being deleted goes once no finalizer is left.
        """
        resource = self._resource(kind)
        made = self._complete(resource, manifest)
        metadata = made["metadata"]
        old = self.get(resource, metadata["name"], metadata.get("namespace", ""))
        if metadata.get("resourceVersion", "") not in ("", old["metadata"]["resourceVersion"]):
            why = "the object has been modified; please apply your changes to the latest version"
            raise conflict(resource.qualified, metadata["name"], f"{why} and try again")
        for field in (*FIXED, "resourceVersion", "generation"):
            metadata.pop(field, None)
            if field in old["metadata"]:
                metadata[field] = old["metadata"][field]
        if made == old or dry_run:
            return made
        if "generation" in metadata and _specified(made) != _specified(old):
            metadata["generation"] += 1
        if _waits_for_nothing(made):
            return self._remove(resource, old)
        return self._commit(resource, old, made)

    def delete(
        self, kind: str | Resource, name: str, namespace: str = "default", *, grace_s: int = 0
    ) -> Manifest:
        """Removes an object; with a grace period or finalizers, only marks it as terminating.

        A namespace takes what is in it along. Returns the last state of the object.
        """
        resource = self._resource(kind)
        old = self.get(resource, name, namespace)
        if grace_s or old["metadata"].get("finalizers"):
            return self._terminate(resource, old, grace_s)
        if resource.kind == "Namespace":
            for inner, key in list(self._inside(name)):
                self._remove(inner, self._objects[inner][key])
        return self._remove(resource, old)

    async def until(self, kind: str | Resource, holds: Callable[[], bool]) -> None:
        """Returns once that holds; it is looked at after each change of the kind."""
        woken = asyncio.Event()
        with self.history(kind).reader(self.version, woken):
            while not holds():
                woken.clear()
                await woken.wait()

    def _terminate(self, resource: Resource, old: Manifest, grace_s: int) -> Manifest:
        if old["metadata"].get("deletionGracePeriodSeconds", grace_s + 1) <= grace_s:
            return old
        marked = copy.deepcopy(old)
        marked["metadata"].setdefault("deletionTimestamp", now())
        marked["metadata"]["deletionGracePeriodSeconds"] = grace_s
        return self._commit(resource, old, marked)

    def _remove(self, resource: Resource, old: Manifest) -> Manifest:
        self.version += 1
        del self._objects[resource][_key_of(old)]
        self._histories[resource].record(Change(self.version, old, None))
        return at_version(old, self.version)

    def _commit(self, resource: Resource, old: Manifest | None, new: Manifest) -> Manifest:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self._objects[resource][_key_of(new)] = new
        self._histories[resource].record(Change(self.version, old, new))
        return new

    def _inside(self, namespace: str) -> Iterator[tuple[Resource, Key]]:
        for resource, objects in self._objects.items():
            if resource.namespaced:
                yield from ((resource, key) for key in objects if key[0] == namespace)

    def _complete(self, resource: Resource, manifest: Manifest) -> Manifest:
        made = copy.deepcopy(manifest)
        made["apiVersion"], made["kind"] = resource.api_version, resource.kind
        metadata = made.setdefault("metadata", {})
        if resource.namespaced:
            metadata["namespace"] = metadata.get("namespace") or "default"
        else:
            metadata.pop("namespace", None)
        return made

    def _resource(self, kind: str | Resource) -> Resource:
        return kind if isinstance(kind, Resource) else self.resources.of_kind(kind)

    def _key(self, resource: Resource, name: str, namespace: str) -> Key:
        return (namespace if resource.namespaced else "", name)


def _key_of(manifest: Manifest) -> Key:
    return (manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])


def _specified(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest.items() if key not in ("metadata", "status")}


def _waits_for_nothing(manifest: Manifest) -> bool:
    metadata = manifest["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    return not metadata["deletionGracePeriodSeconds"]
