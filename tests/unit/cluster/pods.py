"""Manifests of pods and nodes, and a watch of a discovery that a test can wait on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pdserve.cluster.discovery import Discovery
from pdserve.cluster.instance import InstanceAddress

TIMEOUT_S = 30.0
Membership = tuple[InstanceAddress, ...]


def pod(
    name: str,
    role: str | None = "decode",
    *,
    ip: str = "127.0.0.1",
    port: int = 7000,
    port_name: str = "grpc",
    node: str = "",
    phase: str = "Running",
    **labels: str,
) -> dict[str, Any]:
    """A pod with one container; role None: without the label."""
    ports = [{"name": "metrics", "containerPort": 9}, {"name": port_name, "containerPort": port}]
    roles = {} if role is None else {"pdserve.io/role": role}
    return {
        "metadata": {"name": name, "labels": {**roles, **labels}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "none", "ports": ports}],
        },
        "status": {"phase": phase, "podIP": ip},
    }


def node(name: str, **labels: str) -> dict[str, Any]:
    """A node; `labels` by the last word of their names."""
    names = {
        "clique": "nvidia.com/gpu.clique",
        "rack": "topology.kubernetes.io/rack",
        "zone": "topology.kubernetes.io/zone",
    }
    return {"metadata": {"name": name, "labels": {names[key]: labels[key] for key in labels}}}


class Members:
    """What a discovery says: `seen` are all memberships, in their order."""

    def __init__(self, discovery: Discovery) -> None:
        self.discovery = discovery
        self.seen: list[Membership] = []
        self.watching: asyncio.Task[None] | None = None

    @property
    def now(self) -> Membership:
        return self.seen[-1] if self.seen else ()

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.now]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when `holds` does; raises what the watch raises."""
        assert self.watching is not None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not holds():
                    if self.watching.done():
                        await self.watching
                        raise AssertionError("the watch has ended")
                    await asyncio.sleep(0.005)
        except TimeoutError:
            problem = self.discovery.problem
            raise AssertionError(f"still {self.names}; problem: {problem!r}") from None

    async def follow(self) -> None:
        async with aclosing(self.discovery.watch()) as memberships:  # type: ignore[type-var]
            async for membership in memberships:
                self.seen.append(membership)


@asynccontextmanager
async def members_of(discovery: Discovery) -> AsyncIterator[Members]:
    """Follows a discovery in a task, which is cancelled at the end."""
    members = Members(discovery)
    members.watching = asyncio.create_task(members.follow())
    try:
        yield members
    finally:
        members.watching.cancel()
        await asyncio.gather(members.watching, return_exceptions=True)
