"""The cluster that the matrix is tried on: real services without a model, a proxy before each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from pdserve.config import InstanceConfig, RouterConfig
from tests.chaos.cells import Victim
from tests.chaos.members import START_TIMEOUT_S, InstanceMember, Member, RouterMember
from tests.chaos.polling import until
from tests.integration.harness import left_behind

IDLE_TIMEOUT_S = 20.0
SILENCE_S = 1.5
INSTANCE = InstanceConfig(
    threads=1, max_batch_tokens=256, lease_s=4, segment_timeout_s=1.5, connect_timeout_s=2,
    max_channels=8, drain_grace_s=2,
)  # fmt: skip
# The plainest placer, so that both instances of a phase have something to do, and more retries
# than a fault a second can ask for.
ROUTER = RouterConfig(
    placer="least_load", silence_timeout_s=SILENCE_S, silence_floor_s=SILENCE_S, retry_share=10,
    breaker_cooldown_s=0.2, drain_grace_s=2, http=False,
)  # fmt: skip
NAMES = {
    Victim.PREFILL: ("prefill-0", "prefill-1"),
    Victim.DECODE: ("decode-0", "decode-1"),
}


class ChaosCluster:
    """Two prefill and two decode instances and a router; their files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.instances = [
            InstanceMember(role, name, INSTANCE, folder)
            for role, names in NAMES.items()
            for name in names
        ]
        self._listed = folder / "instances.yaml"
        self._folder = folder
        self.router = RouterMember(replace(ROUTER, instances=str(self._listed)), folder)

    @property
    def members(self) -> list[Member]:
        """Everyone."""
        return [*self.instances, self.router]

    def of(self, role: Victim) -> list[InstanceMember]:
        """The instances of a phase."""
        return [each for each in self.instances if each.role is role]

    async def start(self) -> None:
        """Returns once every request can be served."""
        for each in self.members:
            await each.proxy.start()
        listed = [
            {"role": str(each.role), "address": each.proxy.address, "name": each.name}
            for each in self.instances
        ]
        self._listed.write_text(yaml.safe_dump({"instances": listed}))
        for each in self.members:
            await each.start()
        await self.whole()

    async def whole(self) -> None:
        """Returns once the router has found the present life of every instance."""

        async def found() -> bool:
            status = await self.router.status()
            seen = {each.report.info.incarnation for each in status.instances if each.state == "up"}
            alive = {(await each.report()).info.incarnation for each in self.instances}
            return alive <= seen

        await until(found, START_TIMEOUT_S)

    async def idle(self) -> None:
        """Returns once nothing of any request is left anywhere; AssertionError where it stays."""
        left: dict[str, object] = {}

        async def nothing_left() -> bool:
            left.clear()
            for each in self.instances:
                load = await each.report()
                if held := left_behind(load):
                    left[each.name] = held
                elif load.channels > INSTANCE.max_channels:
                    left[each.name] = f"{load.channels} channels"
            if running := (await self.router.status()).running_requests:
                left[self.router.name] = f"{running} requests"
            return not left

        try:
            await until(nothing_left, IDLE_TIMEOUT_S)
        except TimeoutError:
            raise AssertionError(f"left behind: {left}") from None

    async def close(self) -> None:
        """Ends everything, whatever state it is in."""
        for each in self.members:
            await each.close()

    def logs(self) -> str:
        """The last lines of every process, for whoever has to find out what went wrong."""
        texts = []
        for path in sorted(self._folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            texts.append("\n".join([f"--- {path.stem}", *lines[-40:]]))
        return "\n".join(texts)


@asynccontextmanager
async def chaos_cluster(folder: Path) -> AsyncIterator[ChaosCluster]:
    """A cluster that is up; afterwards nothing of it is left."""
    cluster = ChaosCluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.close()
