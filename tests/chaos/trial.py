"""Tries one cell: the fault again and again under load, and what must hold after each."""

import random
import statistics
import time
from dataclasses import dataclass, field

import grpc

from pdserve.rpc.channel import open_channel
from tests.chaos.cells import Cell, Victim
from tests.chaos.cluster import ChaosCluster
from tests.chaos.faults import harm
from tests.chaos.load import Load, Stream
from tests.chaos.members import Member
from tests.chaos.moments import moment

# So many clients that a dozen faults disturb as many requests as were asked for.
FEWEST_CLIENTS, MOST_CLIENTS = 6, 16
# From a fault until the last request that it hit has its next token: finding out, prefilling again
# beside everything else, and the noise of a shared machine.
RECOVERY_S = 20.0


@dataclass(slots=True)
class Trial:
    """What came of a cell.

    `recoveries`: for each request that needed another attempt, the longest time without a token
    from the fault on, in seconds; of a router that fails, the times until its clients were told.
    """

    cell: Cell
    faults: int = 0
    requests: int = 0
    recoveries: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float | None:
        """None where nobody noticed."""
        return statistics.median(self.recoveries) if self.recoveries else None

    @property
    def longest_s(self) -> float | None:
        """None where nobody noticed."""
        return max(self.recoveries, default=None)


async def try_cell(cluster: ChaosCluster, cell: Cell, requests: int) -> Trial:
    """Lets the cell's fault happen until so many requests have been sent, at least once.

    Raises `AssertionError` where the contract does not hold.
    """
    trial = Trial(cell)
    rng = random.Random(str(cell))
    victims = _victims(cluster, cell)
    clients = min(MOST_CLIENTS, max(FEWEST_CLIENTS, requests // 12))
    while not trial.faults or trial.requests < requests:
        victim = victims[trial.faults % len(victims)]
        happened_at, streams = await _one_fault(cluster, cell, victim, clients, rng)
        _check(cell, streams, happened_at)
        trial.faults += 1
        trial.requests += len(streams)
        trial.recoveries += _recoveries(cell, streams, happened_at)
        await cluster.idle()
    return trial


def _victims(cluster: ChaosCluster, cell: Cell) -> list[Member]:
    if cell.victim is Victim.ROUTER:
        return [cluster.router]
    return [*cluster.of(Victim.DECODE if cell.victim is Victim.DECODE else Victim.PREFILL)]


async def _one_fault(
    cluster: ChaosCluster, cell: Cell, victim: Member, clients: int, rng: random.Random
) -> tuple[float, list[Stream]]:
    """When it happened, and every request that was sent around it."""
    done = harm(cell, cluster, victim)
    async with open_channel(cluster.router.proxy.address) as channel:
        load = Load(channel, clients, rng)
        async with load.running(), moment(cell.moment, cluster, victim, load):
            happened_at = time.monotonic()
            await done.do()
    await done.undo()
    await cluster.whole()
    return happened_at, load.streams


def _check(cell: Cell, streams: list[Stream], happened_at: float) -> None:
    for stream in streams:
        if cell.ends_streams and stream.under_way_at(happened_at):
            if stream.error is not None:
                assert stream.error.code() is grpc.StatusCode.UNAVAILABLE
            assert stream.ids == stream.expected[: len(stream.ids)]
        else:
            assert stream.error is None, f"a request was lost: {stream.error.details()}"
            assert stream.ids == stream.expected
    pauses = [each.pause_after(happened_at) for each in streams if each.under_way_at(happened_at)]
    assert max(pauses, default=0.0) < RECOVERY_S


def _recoveries(cell: Cell, streams: list[Stream], happened_at: float) -> list[float]:
    hit = [each for each in streams if each.under_way_at(happened_at)]
    return [
        each.pause_after(happened_at)
        for each in hit
        if each.disturbed or (cell.ends_streams and each.error)
    ]
