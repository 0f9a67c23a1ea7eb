"""The verbs of the API on the store: what each request does and answers."""

import json
from collections.abc import Mapping
from contextlib import aclosing, suppress

from aiohttp import web

from tests.doubles.kube.access import Faults
from tests.doubles.kube.errors import bad_request, conflict
from tests.doubles.kube.paging import Pages
from tests.doubles.kube.paths import Target
from tests.doubles.kube.selectors import Predicate, field_predicate, label_predicate
from tests.doubles.kube.store import Manifest, Store
from tests.doubles.kube.watching import OpenWatches, Watch, WatchEvent

# The longest watch of a client that sets no time of its own.
WATCH_TIMEOUT_S = 1800.0


def flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is on or off."""
    return query.get(name, "false").lower() in ("true", "1")


class Api:
    """Answers the requests for one store."""

    def __init__(self, store: Store, faults: Faults, bookmark_interval_s: float) -> None:
        self._store = store
        self._faults = faults
        self._interval_s = bookmark_interval_s
        self.pages = Pages()
        self.watches = OpenWatches()

    def list(self, target: Target, query: Mapping[str, str]) -> Manifest:
        """The collection, or the part of it that the client asks for."""
        limit = int(query.get("limit") or 0)
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
        self, request: web.Request, target: Target, query: Mapping[str, str]
    ) -> web.StreamResponse:
        """Streams events, one JSON object a line, until the time is over."""
        watch = Watch(
            self._store,
            target.resource,
            target.namespace,
            selection(target, query),
            bookmarks=flag(query, "allowWatchBookmarks"),
            bookmark_interval_s=self._interval_s,
        )
        asked = int(query.get("resourceVersion") or 0)
        initial: list[WatchEvent] = []
        if flag(query, "sendInitialEvents"):
            asked, initial = 0, [*watch.present(), watch.end_of_present()]
        elif not asked:
            initial = watch.present()
        version = asked or self._store.version
        if self._faults.gone_as_status:
            self._store.history(target.resource).check(version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        timeout_s = float(query.get("timeoutSeconds") or WATCH_TIMEOUT_S)
        # A client that went away has nothing to be told.
        with suppress(ConnectionError):
            await response.prepare(request)
            for event in initial:
                await response.write(encoded(event))
            async with aclosing(watch.events(version, timeout_s, self.watches)) as events:
                async for event in events:
                    await response.write(encoded(event))
            if watch.reset and request.transport is not None:
                request.transport.abort()
        return response

    def get(self, target: Target) -> Manifest:
        """The object."""
        return self._store.get(target.resource, target.name, target.namespace)

    def create(self, target: Target, manifest: Manifest) -> Manifest:
        """Adds the object; its status is not the client's to set."""
        placed = self._placed(target, manifest)
        if target.resource.has_status:
            placed.pop("status", None)
        return self._store.create(target.resource, placed)

    def update(self, target: Target, manifest: Manifest) -> Manifest:
        """Replaces the object, or its status only."""
        placed = self._placed(target, manifest)
        if target.resource.has_status:
            old = self.get(target)
            kept, taken = (old, placed) if target.subresource == "status" else (placed, old)
            placed = {key: value for key, value in kept.items() if key != "status"}
            if "status" in taken:
                placed["status"] = taken["status"]
            if version := manifest["metadata"].get("resourceVersion"):
                metadata = {**placed["metadata"], "resourceVersion": version}
                placed["metadata"] = metadata
        return self._store.update(target.resource, placed)

    def delete(self, target: Target, query: Mapping[str, str], options: Manifest) -> Manifest:
        """Removes the object; a pod that runs on a node only begins to terminate."""
        found = self.get(target)
        self._check_preconditions(target, found, options.get("preconditions") or {})
        grace = query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        return self._store.delete(
            target.resource,
            target.name,
            target.namespace,
            grace_s=grace_of(found, None if grace is None else int(grace)),
        )

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
        return {**manifest, "metadata": metadata}

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


def grace_of(manifest: Manifest, asked: int | None) -> int:
    """Seconds that the object has to end; only pods on a node need any."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] != "Pod" or not spec.get("nodeName"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", 30)) if asked is None else asked


def encoded(event: WatchEvent) -> bytes:
    """One line of a watch."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
