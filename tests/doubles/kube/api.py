"""The verbs of the API on the store: what each request does and answers."""

import json
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from tests.doubles.kube.access import Faults
from tests.doubles.kube.applying import applied
from tests.doubles.kube.defaults import completed
from tests.doubles.kube.errors import ApiError, bad_request, conflict
from tests.doubles.kube.ownership import Manager, credited
from tests.doubles.kube.paging import Pages
from tests.doubles.kube.patching import json_patch, merge_patch, strategic_merge_patch
from tests.doubles.kube.paths import Target
from tests.doubles.kube.resources import EXTENSIONS
from tests.doubles.kube.scaling import scale_of, scaled
from tests.doubles.kube.schemas import check_fields
from tests.doubles.kube.selectors import Predicate, field_predicate, label_predicate
from tests.doubles.kube.store import Manifest, Store
from tests.doubles.kube.watching import OpenWatches, Watch, WatchEvent

Shape = Callable[[Manifest], Manifest]

STRATEGIC = "application/strategic-merge-patch+json"
PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": json_patch,
    "application/merge-patch+json": merge_patch,
    # Not for extensions, of whose lists the API knows nothing.
    STRATEGIC: strategic_merge_patch,
}
# The longest watch of a client that sets no time of its own.
WATCH_TIMEOUT_S = 1800


def flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is on or off."""
    return query.get(name, "false").lower() in ("true", "1")


def number(query: Mapping[str, str], name: str) -> int:
    """A parameter that counts; 0 where there is none. Raises ApiError for anything else."""
    stated = query.get(name) or "0"
    if not (stated.isascii() and stated.isdecimal()):
        raise bad_request(f"{name}: {stated!r} is no number")
    return int(stated)


@dataclass(frozen=True, slots=True)
class Write:
    """Who writes, and how."""

    writer: Manager
    # Unknown fields are refused.
    strict: bool = False
    # Nothing is stored.
    dry_run: bool = False
    # Applied fields are taken from their owners.
    force: bool = False


class Api:
    """Answers the requests for one store."""

    def __init__(
        self, store: Store, faults: Faults, *, version: str, bookmark_interval_s: float
    ) -> None:
        self._store = store
        self._faults = faults
        self._version = version
        self._interval_s = bookmark_interval_s
        self.pages = Pages()
        self.watches = OpenWatches()

    def list(self, target: Target, query: Mapping[str, str]) -> Manifest:
        """The collection, or the part of it that the client asks for."""
        limit = number(query, "limit")
        if token := query.get("continue"):
            page = self.pages.next(token, limit)
        else:
            selected = selection(target, query)
            items = self._store.list(target.resource, target.namespace)
            chosen = [item for item in items if selected(item)]
            page = self.pages.first(self._store.version, chosen, limit)
        metadata: Manifest = {"resourceVersion": str(page.version)}
        if page.token:
            metadata |= {"continue": page.token, "remainingItemCount": page.remaining}
        return {
            "kind": f"{target.resource.kind}List",
            "apiVersion": target.resource.api_version,
            "metadata": metadata,
            "items": page.items,
        }

    async def watch(
        self, request: web.Request, target: Target, query: Mapping[str, str], shape: Shape
    ) -> web.StreamResponse:
        """Streams events, one JSON object a line, until the time is over.

        `shape` makes of an object what the client reads.
        """
        watch = Watch(
            self._store,
            target.resource,
            target.namespace,
            selection(target, query),
            bookmarks=flag(query, "allowWatchBookmarks"),
            bookmark_interval_s=self._interval_s,
        )
        asked = number(query, "resourceVersion")
        initial: list[WatchEvent] = []
        if flag(query, "sendInitialEvents"):
            asked, initial = 0, [*watch.present(), watch.end_of_present()]
        elif not asked:
            initial = watch.present()
        version = asked or self._store.version
        if self._faults.gone_as_status:
            self._store.history(target.resource).check(version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        timeout_s = number(query, "timeoutSeconds") or WATCH_TIMEOUT_S
        # A client that went away has nothing to be told.
        with suppress(ConnectionError):
            await response.prepare(request)
            for event in initial:
                await response.write(encoded(event, shape))
            async with aclosing(watch.events(version, timeout_s, self.watches)) as events:
                async for event in events:
                    await response.write(encoded(event, shape))
            if watch.reset and request.transport is not None:
                request.transport.abort()
        return response

    def get(self, target: Target) -> Manifest:
        """The object, or its scale."""
        found = self._store.get(target.resource, target.name, target.namespace)
        return scale_of(found) if target.subresource == "scale" else found

    def create(self, target: Target, manifest: Manifest, write: Write) -> Manifest:
        """Adds the object; its status is not the client's to set."""
        placed = self._placed(target, manifest)
        if target.resource.has_status:
            placed.pop("status", None)
        self._check(target, placed, write)
        new = completed(credited(None, placed, write.writer))
        return self._store.create(target.resource, new, dry_run=write.dry_run)

    def update(self, target: Target, manifest: Manifest, write: Write) -> Manifest:
        """Replaces the object, or its status or scale only."""
        if target.subresource == "scale":
            whole = replace(target, subresource="")
            scale = scaled(self.get(whole), manifest)
            return scale_of(self.update(whole, scale, write))
        old = self.get(target)
        new = self._limited(target, old, self._placed(target, manifest))
        self._check(target, new, write)
        return self._replace(target, credited(old, new, write.writer), write)

    def patch(self, target: Target, kind: str, patch: Any, write: Write) -> Manifest:
        """Changes the object by a patch of that content type."""
        old = self.get(target)
        unmerged = kind == STRATEGIC and target.resource in EXTENSIONS
        if kind not in PATCHES or unmerged:
            raise ApiError(415, "UnsupportedMediaType", f"no patch of type {kind}")
        return self.update(target, PATCHES[kind](old, patch), write)

    def apply(self, target: Target, config: Manifest, write: Write) -> tuple[Manifest, bool]:
        """The object with the applied fields, and whether it is new."""
        placed = self._placed(target, config)
        if not self._store.has(target.resource, target.name, target.namespace):
            return self.create(target, placed, write), True
        old = self.get(target)
        # What may not be written here is not owned by applying it either.
        untouched = "spec" if target.subresource == "status" else "status"
        stated = {field: value for field, value in placed.items() if field != untouched}
        new = self._limited(target, old, applied(old, stated, write.writer, force=write.force))
        self._check(target, new, write)
        return self._replace(target, new, write), False

    def delete(self, target: Target, query: Mapping[str, str], options: Manifest) -> Manifest:
        """Removes the object; a pod that runs on a node only begins to terminate."""
        found = self.get(target)
        self._check_preconditions(target, found, options.get("preconditions") or {})
        if query.get("dryRun") or options.get("dryRun"):
            return found
        grace_s = grace_of(found, query, options)
        return self._store.delete(target.resource, target.name, target.namespace, grace_s=grace_s)

    def delete_collection(
        self, target: Target, query: Mapping[str, str], options: Manifest
    ) -> Manifest:
        """Removes every object that is selected; the answer lists them."""
        found = self.list(target, query)
        for item in found["items"]:
            metadata = item["metadata"]
            one = Target(target.resource, metadata.get("namespace", ""), metadata["name"])
            self.delete(one, query, options)
        return found

    def _check(self, target: Target, manifest: Manifest, write: Write) -> None:
        check_fields(target.resource, manifest, self._version, strict=write.strict)

    def _replace(self, target: Target, manifest: Manifest, write: Write) -> Manifest:
        return self._store.update(target.resource, completed(manifest), dry_run=write.dry_run)

    def _limited(self, target: Target, old: Manifest, new: Manifest) -> Manifest:
        """The new object as far as it may be written at this path: status apart from the rest."""
        if not target.resource.has_status:
            return new
        kept, taken = (old, new) if target.subresource == "status" else (new, old)
        limited = {field: value for field, value in kept.items() if field != "status"}
        if "status" in taken:
            limited["status"] = taken["status"]
        metadata = new["metadata"]
        stated = {
            field: metadata[field]
            for field in ("resourceVersion", "managedFields")
            if field in metadata
        }
        limited["metadata"] = {**kept["metadata"], **stated}
        return limited

    def _placed(self, target: Target, manifest: Manifest) -> Manifest:
        """The manifest in the namespace and under the name of the path."""
        kind, api_version = target.resource.kind, target.resource.api_version
        stated = (manifest.get("apiVersion", api_version), manifest.get("kind", kind))
        if stated != (api_version, kind):
            raise bad_request(f"{stated} does not belong to the path of {api_version}, {kind}")
        metadata = dict(manifest.get("metadata") or {})
        for field, value in (("namespace", target.namespace), ("name", target.name)):
            if value and metadata.setdefault(field, value) != value:
                where = f"the {field} of the object ({metadata[field]})"
                raise bad_request(f"{where} does not match the {field} of the URL ({value})")
        return {**manifest, "apiVersion": api_version, "kind": kind, "metadata": metadata}

    def _check_preconditions(self, target: Target, found: Manifest, wanted: Manifest) -> None:
        for field in ("uid", "resourceVersion"):
            present = found["metadata"][field]
            if wanted.get(field, present) != present:
                why = f"the {field} in the precondition ({wanted[field]}) is not {present}"
                raise conflict(target.resource.qualified, target.name, why)


def selection(target: Target, query: Mapping[str, str]) -> Predicate:
    """Whether an object is one of those that the query asks for."""
    labels = label_predicate(query.get("labelSelector", ""))
    fields = field_predicate(target.resource, query.get("fieldSelector", ""))
    name = target.name

    def selected(manifest: Manifest) -> bool:
        named = not name or manifest["metadata"]["name"] == name
        return named and labels(manifest) and fields(manifest)

    return selected


def grace_of(manifest: Manifest, query: Mapping[str, str], options: Manifest) -> int:
    """Seconds that the object has to end; only pods on a node need any."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] != "Pod" or not spec.get("nodeName"):
        return 0
    if "gracePeriodSeconds" in query:
        return number(query, "gracePeriodSeconds")
    default = spec.get("terminationGracePeriodSeconds", 30)
    return int(options.get("gracePeriodSeconds", default))


def encoded(event: WatchEvent, shape: Shape) -> bytes:
    """One line of a watch."""
    if event["type"] not in ("BOOKMARK", "ERROR"):
        event = {**event, "object": shape(event["object"])}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
