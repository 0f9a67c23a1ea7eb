"""What is done to the cluster during a soak: drains, kills and stops, one after the other."""

import asyncio
import random
import signal
from collections import Counter

from pdserve.cli.local_cluster import LocalCluster

# Until a process is stopped no longer: sometimes shorter than the router bears, sometimes longer.
_STOP_S = (0.2, 6.0)


class Harm:
    """Harms one instance at a time. `done` counts what was done.

    The first instance of each phase is only stopped, never ended, so that it has a long life to be
    watched; the others are drained and killed as well, and started again.
    """

    def __init__(self, cluster: LocalCluster, rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng

    async def run(self, pause_s: float, seconds: float) -> None:
        """Does so again and again, with pauses; begins nothing after so many seconds."""
        ends_at = asyncio.get_running_loop().time() + seconds
        actions = [self._stop, self._drain, self._kill]
        while True:
            self._rng.shuffle(actions)
            for action in actions:
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.5))
                if asyncio.get_running_loop().time() >= ends_at:
                    return
                await action()

    async def _stop(self) -> None:
        name = self._rng.choice([name for _, name in self._cluster.spec.names()])
        self._cluster.signal(name, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._rng.uniform(*_STOP_S))
        finally:
            self._cluster.signal(name, signal.SIGCONT)
        self.done["SIGSTOP, SIGCONT"] += 1

    async def _drain(self) -> None:
        name = self._one_that_may_end()
        self._cluster.signal(name, signal.SIGTERM)
        await self._cluster.restart(name)
        self.done["drain, restart"] += 1

    async def _kill(self) -> None:
        name = self._one_that_may_end()
        await self._cluster.kill(name)
        await self._cluster.restart(name)
        self.done["SIGKILL, restart"] += 1

    def _one_that_may_end(self) -> str:
        names = [name for _, name in self._cluster.spec.names() if not name.endswith("-0")]
        return self._rng.choice(names)
