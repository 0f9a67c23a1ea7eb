"""Watches: what happens to the selected objects of a resource, as a stream of events."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from tests.doubles.kube.errors import ApiError
from tests.doubles.kube.history import Change
from tests.doubles.kube.resources import Resource
from tests.doubles.kube.selectors import Predicate
from tests.doubles.kube.store import Store, at_version

WatchEvent = dict[str, Any]
# Tells a client that asked for the present objects in the watch that it has them all.
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


class OpenWatches:
    """The watches that get events now."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._watches)

    def __iter__(self) -> Iterator["Watch"]:
        return iter(tuple(self._watches))

    def add(self, watch: "Watch") -> None:
        """From now on it gets events."""
        self._watches.add(watch)
        self._changed.set()

    def discard(self, watch: "Watch") -> None:
        """It gets no more."""
        self._watches.discard(watch)
        self._changed.set()

    async def until(self, count: int) -> None:
        """Returns once exactly so many are open."""
        while len(self) != count:
            self._changed.clear()
            await self._changed.wait()


class Watch:
    """One client's watch.

    After `drop` the stream ends; `reset` says that the connection is to be reset, not closed.
    """

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str,
        selected: Predicate,
        *,
        bookmarks: bool,
        bookmark_interval_s: float,
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._selected = selected
        self._bookmarks = bookmarks
        self._interval_s = bookmark_interval_s
        self._woken = asyncio.Event()
        self._bookmark_wanted = False
        self._dropped = False
        self.reset = False

    def drop(self, *, reset: bool) -> None:
        """Ends the stream now."""
        self._dropped, self.reset = True, reset
        self._woken.set()

    def bookmark(self) -> None:
        """Sends a bookmark now, if the client allows it."""
        self._bookmark_wanted = True
        self._woken.set()

    def present(self) -> list[WatchEvent]:
        """The objects that are there, as if they came just now."""
        objects = self._store.list(self._resource, self._namespace)
        return [{"type": "ADDED", "object": found} for found in objects if self._selected(found)]

    def end_of_present(self) -> WatchEvent:
        """That the client has been sent all the objects that are there."""
        event = self._bookmark_event(self._store.version)
        event["object"]["metadata"]["annotations"] = INITIAL_EVENTS_END
        return event

    async def events(
        self, version: int, timeout_s: float, watches: OpenWatches
    ) -> AsyncGenerator[WatchEvent, None]:
        """What happens after `version`, until the time is over or the watch is dropped.

        The watch is one of the open `watches` meanwhile. Ends with an ERROR event where the version
        is too old.
        """
        history = self._store.history(self._resource)
        loop = asyncio.get_running_loop()
        end, next_bookmark = loop.time() + timeout_s, loop.time() + self._interval_s
        try:
            with history.reader(version, self._woken) as reader:
                watches.add(self)
                while not self._dropped and loop.time() < end:
                    self._woken.clear()
                    changes, present = history.read(reader), self._store.version
                    for change in changes:
                        if event := self._event(change):
                            yield event
                    if self._bookmarks and (self._bookmark_wanted or loop.time() >= next_bookmark):
                        yield self._bookmark_event(present)
                        self._bookmark_wanted = False
                        next_bookmark = loop.time() + self._interval_s
                    await self._sleep(min(end, next_bookmark) - loop.time())
        except ApiError as error:
            yield {"type": "ERROR", "object": error.status()}
        finally:
            watches.discard(self)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _bookmark_event(self, version: int) -> WatchEvent:
        kind, api_version = self._resource.kind, self._resource.api_version
        metadata = {"resourceVersion": str(version)}
        seen = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        return {"type": "BOOKMARK", "object": seen}

    def _event(self, change: Change) -> WatchEvent | None:
        was = change.before is not None and self._concerns(change.before)
        if change.after is not None and self._concerns(change.after):
            return {"type": "MODIFIED" if was else "ADDED", "object": change.after}
        if change.before is not None and was:
            return {"type": "DELETED", "object": at_version(change.before, change.version)}
        return None

    def _concerns(self, manifest: dict[str, Any]) -> bool:
        namespace = manifest["metadata"].get("namespace", "")
        return self._namespace in ("", namespace) and self._selected(manifest)
