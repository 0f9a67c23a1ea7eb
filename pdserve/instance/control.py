"""The calls that prefill and decode have in common: load reports and draining."""

import asyncio
from collections.abc import Callable

from grpc import aio

from pdserve.errors import InvalidRequestError
from pdserve.instance.instance import Instance
from pdserve.kv.cache_log import MAX_READING, CacheReader
from pdserve.rpc.v1 import types_pb2

# Reports follow changes, but not more often than this.
MIN_REPORT_GAP_S = 0.02
MAX_SECONDS = 3600.0


class Control:
    """Reports load to whoever watches, and starts a drain when asked to.

    `drain(grace_s)` begins the drain and returns at once.
    """

    def __init__(
        self, instance: Instance, report_interval_s: float, drain: Callable[[float | None], None]
    ) -> None:
        self._instance = instance
        self._report_interval_s = report_interval_s
        self._drain = drain

    async def watch_load(
        self,
        request: types_pb2.WatchLoadRequest,
        context: "aio.ServicerContext[types_pb2.WatchLoadRequest, types_pb2.LoadReport]",
    ) -> None:
        """Writes a report on every change and at least every interval, until the call ends."""
        _check_seconds("interval_s", request.interval_s)
        host = self._instance.host
        interval_s = request.interval_s or self._report_interval_s
        cache = CacheReader(host.cache_log) if request.cache else None
        while True:
            change = host.change  # before the report: what happens while it is written counts
            report = self._instance.report()
            behind = cache is not None and _add_cache(report, cache)
            await context.write(report)
            await asyncio.sleep(MIN_REPORT_GAP_S)
            if not behind:
                await host.changed(interval_s - MIN_REPORT_GAP_S, change)

    async def drain(self, request: types_pb2.DrainRequest) -> types_pb2.DrainResponse:
        """Stops taking requests; running ones finish within the grace."""
        self._instance.check_incarnation(request.incarnation)
        _check_seconds("grace_s", request.grace_s)
        self._drain(request.grace_s or None)
        return types_pb2.DrainResponse(
            incarnation=self._instance.info.incarnation,
            running_requests=self._instance.host.requests,
        )


def _add_cache(report: types_pb2.LoadReport, reader: CacheReader) -> bool:
    """Adds what the prefix cache has gained and lost; returns whether that was not all of it."""
    if change := reader.read():
        report.cache.reset = change.reset
        report.cache.added.extend(change.added)
        report.cache.removed.extend(change.removed)
    return len(change.added) + len(change.removed) >= MAX_READING


def _check_seconds(field: str, value: float) -> None:
    if 0 <= value <= MAX_SECONDS:  # NaN fails
        return
    limit = f"[0, {MAX_SECONDS:g}]"
    raise InvalidRequestError(
        f"{field} is {value}; it must lie in {limit}", field=field, limit=limit
    )
