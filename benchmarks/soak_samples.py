"""What the processes of a soak hold, sampled over time, and whether it grows."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import psutil
from grpc import aio

from pdserve.cli.local_cluster import ROUTER, LocalCluster
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import decode_pb2_grpc, prefill_pb2_grpc, types_pb2

_CALL_TIMEOUT_S = 2.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a figure may have risen at the end of a soak: by so much, or by a share of itself."""

    figure: str
    amount: float
    share: float = 0.0


# A channel, with its thread, its sockets and its buffers, outlives its peer by a minute.
LIMITS = (
    Limit("rss_mib", 5.0, 0.03),
    Limit("descriptors", 20),
    Limit("threads", 10),
    Limit("tasks", 6),
    Limit("channels", 4),
    Limit("leases", 4),
    Limit("quarantined", 4),
)


@dataclass(slots=True)
class Series:
    """The samples of one process: when, in seconds, and each figure as it was then."""

    times: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, now: float, sample: dict[str, float]) -> None:
        """Appends one sample of all figures."""
        self.times.append(now)
        for name, value in sample.items():
            self.figures.setdefault(name, []).append(value)

    def trend(self, name: str, since: float) -> "Trend":
        """The straight line through the samples of a figure from the moment `since` on."""
        chosen = [i for i, at in enumerate(self.times) if at >= since]
        times = np.asarray([self.times[i] for i in chosen])
        values = np.asarray([self.figures[name][i] for i in chosen])
        slope, _ = np.polyfit(times, values, 1)
        span = float(times[-1] - times[0])
        return Trend(float(np.median(values)), float(slope) * span, float(slope) * 3600)


@dataclass(frozen=True, slots=True)
class Trend:
    """A figure over the time that was watched: its median, and what the fitted line rose by."""

    median: float
    rise: float
    rise_per_hour: float

    def exceeds(self, limit: Limit) -> bool:
        """Whether it rose by more than it may."""
        return self.rise > max(limit.amount, limit.share * self.median)


class Sampler:
    """Samples the processes of a cluster that live from beginning to end."""

    def __init__(self, cluster: LocalCluster) -> None:
        names = [name for _, name in cluster.spec.names() if name.endswith("-0")]
        self.series = {name: Series() for name in (*names, ROUTER)}
        self._cluster = cluster

    async def run(self, interval_s: float) -> None:
        """Samples until it is cancelled; one that does not answer is left out."""
        channels = {name: open_channel(self._cluster.addresses[name]) for name in self.series}
        try:
            while True:
                for name, series in self.series.items():
                    with suppress(aio.AioRpcError):
                        series.add(time.monotonic(), await self._sample(name, channels[name]))
                await asyncio.sleep(interval_s)
        finally:
            for channel in channels.values():
                await channel.close()

    async def _sample(self, name: str, channel: aio.Channel) -> dict[str, float]:
        process = psutil.Process(self._cluster.pids[name])
        sample: dict[str, float] = {
            "rss_mib": process.memory_info().rss / _MIB,
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
        }
        if name == ROUTER:
            return sample
        load = await _report(channel, self._cluster.processes[name].role)
        return sample | {
            "tasks": load.tasks,
            "channels": load.channels,
            "leases": load.leases,
            "quarantined": load.blocks.quarantined,
        }


def risen(series: dict[str, Series], since: float) -> Sequence[str]:
    """In words, every figure of every process that rose by more than its limit."""
    return [
        f"{name}: {limit.figure} rose by {trend.rise:.1f} from about {trend.median:.1f}"
        for name, each in series.items()
        for limit in LIMITS
        if limit.figure in each.figures
        and (trend := each.trend(limit.figure, since)).exceeds(limit)
    ]


async def _report(channel: aio.Channel, role: str) -> types_pb2.LoadReport:
    stub = prefill_pb2_grpc.PrefillStub if role == "prefill" else decode_pb2_grpc.DecodeStub
    call = stub(channel).WatchLoad(types_pb2.WatchLoadRequest(), timeout=_CALL_TIMEOUT_S)
    try:
        async for first in call:
            return first
    finally:
        call.cancel()
    raise RuntimeError("an instance ended its load reports")
