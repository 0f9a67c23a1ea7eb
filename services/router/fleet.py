"""All instances of the cluster, each with its watcher."""

import asyncio
from collections import Counter

from pdserve.cluster.discovery import Discovery
from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.config import RouterConfig
from pdserve.rpc.tls_identity import TlsIdentity
from pdserve.rpc.v1 import router_pb2
from services.router.instance import Instance
from services.router.knowledge import Knowledge
from services.router.model import ServedModel
from services.router.view import Candidate, FleetView
from services.router.watcher import State, Watcher


class Fleet:
    """Watches every instance that discovery names, as long as `run` runs."""

    def __init__(
        self,
        discovery: Discovery,
        config: RouterConfig,
        model: ServedModel,
        knowledge: Knowledge,
        tls: TlsIdentity | None,
    ) -> None:
        self._discovery = discovery
        self._config = config
        self._model = model
        self._knowledge = knowledge
        self._tls = tls
        self._watchers: dict[InstanceAddress, Watcher] = {}
        self._tasks: dict[InstanceAddress, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follows the membership until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            async for membership in self._discovery.watch():
                self._reconcile(tasks, membership)

    @property
    def problem(self) -> str:
        """Why instances may be missing or out of date; empty: nothing is known to be wrong."""
        return self._discovery.problem

    def view(self) -> FleetView:
        """The fleet as it is now."""
        candidates: dict[Role, list[Candidate]] = {role: [] for role in Role}
        absent = [f"discovery: {self.problem}"] if self.problem else []
        for watcher in self._watchers.values():
            if candidate := watcher.candidate():
                candidates[watcher.address.role].append(candidate)
            else:
                absent.append(_absence(watcher))
        return FleetView(
            tuple(candidates[Role.PREFILL]), tuple(candidates[Role.DECODE]), tuple(absent)
        )

    def instance(self, incarnation: str) -> Instance:
        """The instance behind a candidate of the present view."""
        return next(
            watcher.instance
            for watcher in self._watchers.values()
            if watcher.instance and watcher.instance.incarnation == incarnation
        )

    def instances(self) -> list[Instance]:
        """Every instance that is known and not lost, whether or not it takes requests."""
        return [each.instance for each in self._watchers.values() if each.instance]

    def changed(self) -> asyncio.Event:
        """An event that is set at the next report or change of state."""
        return self._changed

    def status(self) -> list[router_pb2.InstanceStatus]:
        """Every instance, in the order of discovery."""
        return [watcher.status() for watcher in self._watchers.values()]

    def count(self) -> Counter[tuple[Role, State]]:
        """How many instances of each role are in each state; callable from any thread."""
        return Counter((each.address.role, each.state) for each in list(self._watchers.values()))

    def _reconcile(self, tasks: asyncio.TaskGroup, membership: tuple[InstanceAddress, ...]) -> None:
        for address in set(self._watchers) - set(membership):
            del self._watchers[address]
            self._tasks.pop(address).cancel()
        for address in membership:
            if address not in self._watchers:
                watcher = Watcher(
                    address, self._config, self._model, self._knowledge, self._tls, self._notify
                )
                self._watchers[address] = watcher
                self._tasks[address] = tasks.create_task(watcher.run())
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _absence(watcher: Watcher) -> str:
    detail = f" ({watcher.detail})" if watcher.detail else ""
    return f"{watcher.address.name} is {watcher.state}{detail}"
