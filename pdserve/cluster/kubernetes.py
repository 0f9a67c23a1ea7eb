"""Membership as Kubernetes has it: an instance is a pod."""

import logging
import math
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from pdserve.cluster.instance import InstanceAddress
from pdserve.cluster.kubernetes_api import (
    BAD_REQUEST,
    FORBIDDEN,
    NOT_FOUND,
    UNAUTHORIZED,
    KubernetesApi,
    KubernetesApiError,
    kubernetes_api,
    require_client,
)
from pdserve.cluster.kubernetes_pod import ROLE_LABEL, PlaceLabels, Pod, reachable
from pdserve.cluster.kubernetes_pods import Pause, PodList
from pdserve.cluster.topology import Topology
from pdserve.errors import ConfigError

log = logging.getLogger(__name__)

_NEEDED = "the service account needs list and watch on pods"
# After which nodes are asked for again where that was forbidden: the right may come later.
_FORBIDDEN_S = 60.0


class KubernetesDiscovery:
    """The pods with a role that `selector` matches; namespace "": the one of this process.

    `problem` says why the membership may be out of date or not whole; empty: nothing is known to be
    wrong. Raises `ConfigError` where the Kubernetes client is not installed.
    """

    def __init__(self, namespace: str, selector: str, labels: PlaceLabels) -> None:
        require_client()
        self.problem = ""
        self._namespace = namespace
        self._labels = labels
        self._pause = Pause()
        self._list = PodList(selector or ROLE_LABEL, self._pause)
        # What each node with a pod says of its place, as far as it has been told.
        self._nodes: dict[str, dict[str, str]] = {}
        self._nodes_forbidden_at = -math.inf
        # The place of each pod on its node, as it was when the pod was met: where an instance is
        # must not change while requests run on it.
        self._places: dict[tuple[str, str], Topology] = {}
        self._membership: tuple[InstanceAddress, ...] | None = None

    async def watch(self) -> AsyncGenerator[tuple[InstanceAddress, ...], None]:
        """The membership, in the order of names, and again after each change.

        The last one stays as long as the API server is away. Raises `ConfigError` where this
        process has no access to Kubernetes or the API server does not understand the selector.
        """
        connected = False
        while True:
            try:
                async with kubernetes_api() as api:
                    connected = True
                    async with aclosing(self._follow(api)) as memberships:
                        async for membership in memberships:
                            yield membership
            except KubernetesApiError as error:
                self._fail(error)
            except ConfigError as error:
                # Files of a configuration that worked are being replaced.
                if not connected or error.field != "kubernetes":
                    raise
                self._complain(str(error))
            await self._pause.wait()

    async def _follow(
        self, api: KubernetesApi
    ) -> AsyncGenerator[tuple[InstanceAddress, ...], None]:
        namespace = self._namespace or api.namespace
        async with aclosing(self._list.follow(api, namespace)) as changes:
            async for _ in changes:
                membership = await self._members(api)
                if membership != self._membership:
                    self._membership = membership
                    yield membership

    async def _members(self, api: KubernetesApi) -> tuple[InstanceAddress, ...]:
        pods = reachable(self._list.pods.values())
        new = {pod.node for pod in pods if (pod.name, pod.node) not in self._places}
        await self._read_nodes(api, {pod.node for pod in pods}, new - {""})
        self._complain(_without_port(self._list.pods.values()))
        self._places = {(pod.name, pod.node): self._place(pod) for pod in pods}
        return tuple(pod.instance(self._places[pod.name, pod.node]) for pod in pods)

    def _place(self, pod: Pod) -> Topology:
        known = self._places.get((pod.name, pod.node))
        return known or self._labels.place(pod.node, pod.labels, self._nodes.get(pod.node, {}))

    async def _read_nodes(self, api: KubernetesApi, present: set[str], wanted: set[str]) -> None:
        """Forgets nodes that are not `present` and asks for those that are `wanted`."""
        for name in self._nodes.keys() - present:
            del self._nodes[name]
        for name in sorted(wanted - self._nodes.keys()):
            if time.monotonic() - self._nodes_forbidden_at < _FORBIDDEN_S:
                return
            try:
                self._nodes[name] = await _node_labels(api, name)
            except KubernetesApiError as error:
                if error.status != FORBIDDEN:
                    raise
                self._nodes_forbidden_at = time.monotonic()
                log.info("nodes may not be read: racks and zones are not known")

    def _fail(self, error: KubernetesApiError) -> None:
        if error.status == BAD_REQUEST:
            text = f"instances: the API server does not accept the selector: {error}"
            raise ConfigError(text, field="instances") from error
        refused = error.status in (UNAUTHORIZED, FORBIDDEN)
        self._complain(f"{error}; {_NEEDED}" if refused else str(error))

    def _complain(self, problem: str) -> None:
        """Logs what is wrong when that changes, and when nothing is any more."""
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            log.warning("instances may be out of date", extra={"detail": problem})
        else:
            log.info("instances are up to date again")


async def _node_labels(api: KubernetesApi, name: str) -> dict[str, str]:
    """The labels of the node; none where there is no such node."""
    try:
        node = await api.get(f"/api/v1/nodes/{name}")
    except KubernetesApiError as error:
        if error.status == NOT_FOUND:
            return {}
        raise
    return dict(node["metadata"].get("labels") or {})


def _without_port(pods: Iterable[Pod]) -> str:
    names = sorted(pod.name for pod in pods if not pod.port)
    if not names:
        return ""
    return f"no container port is named grpc in {', '.join(names[:5])}{' …' * (len(names) > 5)}"
