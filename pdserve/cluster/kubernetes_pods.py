"""The pods that a selector matches, kept as the API server has them."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from pdserve.cluster.kubernetes_api import GONE, Json, KubernetesApi, KubernetesApiError
from pdserve.cluster.kubernetes_pod import Pod, read_pod

_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 15.0
# A stream that has held for so long, or has said something, was no failure.
_HELD_S = 5.0


class Pause:
    """How long to wait before the next try: at random up to a bound that doubles with each."""

    def __init__(self) -> None:
        self._most_s = _SHORTEST_PAUSE_S

    def reset(self) -> None:
        """A try has been worth it: the next pause is short."""
        self._most_s = _SHORTEST_PAUSE_S

    async def wait(self) -> None:
        """Waits."""
        pause_s = random.uniform(0, self._most_s)
        self._most_s = min(2 * self._most_s, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)


class PodList:
    """Pods with an instance by name, as of the last list or event that was seen.

    They stay through everything that goes wrong, and are followed from where they were left: only
    where the API server no longer knows what came then, all are listed anew.
    """

    def __init__(self, selector: str, pause: Pause) -> None:
        self._selector = selector
        self._pause = pause
        self._pods: dict[str, Pod] = {}
        # Empty: nothing has been listed, or too long ago.
        self._version = ""

    @property
    def pods(self) -> Mapping[str, Pod]:
        """The pods."""
        return self._pods

    async def follow(self, api: KubernetesApi, namespace: str) -> AsyncGenerator[None, None]:
        """Yields when pods have been listed, when a watch has begun and when it tells of changes.

        Raises `KubernetesApiError` when something goes wrong; call it again then.
        """
        path = f"/api/v1/namespaces/{namespace}/pods"
        while True:
            began = time.monotonic()
            try:
                if not self._version:
                    await self._take_all(api, path)
                    yield
                async with aclosing(api.watch(path, self._selector, self._version)) as batches:
                    async for events in batches:
                        self._apply(events)
                        yield
            except KubernetesApiError as error:
                if error.status != GONE:
                    raise
                self._version = ""
            if time.monotonic() - began > _HELD_S:
                self._pause.reset()
            await self._pause.wait()

    async def _take_all(self, api: KubernetesApi, path: str) -> None:
        listing = await api.list_all(path, self._selector)
        found = [read_pod(each) for each in listing.items]
        self._pods = {pod.name: pod for pod in found if pod}
        self._version = listing.version

    def _apply(self, events: Sequence[Json]) -> None:
        if events:
            self._pause.reset()
        for event in events:
            metadata = event["object"]["metadata"]
            self._version = metadata["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            pod = read_pod(event["object"]) if event["type"] != "DELETED" else None
            if pod:
                self._pods[pod.name] = pod
            else:
                self._pods.pop(metadata["name"], None)
