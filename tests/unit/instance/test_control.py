"""Load reports follow every change."""

import asyncio
import math

import pytest
from context_runner import GatedRunner, a_request, build_engine

from pdserve.errors import InvalidRequestError, StaleIncarnationError
from pdserve.instance.control import Control
from pdserve.instance.engine_host import EngineHost
from pdserve.instance.instance import Instance, TransferCounts
from pdserve.instance.requests import RequestLimits
from pdserve.rpc.v1 import types_pb2

PATIENCE_S = 30


class Watcher:
    """Takes reports one by one: `write` returns when the report has been taken."""

    def __init__(self):
        self._reports = asyncio.Queue()
        self._taken = asyncio.Semaphore(0)

    async def write(self, report):
        self._reports.put_nowait(report)
        await self._taken.acquire()

    async def arriving(self):
        return await asyncio.wait_for(self._reports.get(), PATIENCE_S)

    def take(self):
        self._taken.release()

    async def until(self, condition):
        """Takes reports until one arrives that meets `condition`."""
        while not condition(await self.arriving()):
            self.take()


@pytest.fixture
def runner():
    return GatedRunner(4)


@pytest.fixture
async def host(runner):
    host = EngineHost(build_engine(runner), max_waiting=8)
    yield host
    runner.gate.release(10)
    assert await host.close(PATIENCE_S)


def a_control(host, drain=lambda _: None):
    info = types_pb2.InstanceInfo(name="decode-0", incarnation="D")
    instance = Instance(info, RequestLimits(40, 128), host, lambda: TransferCounts(0, 0), 60.0)
    return Control(instance, report_interval_s=10 * PATIENCE_S, drain=drain)


@pytest.fixture
async def watcher(host):
    """Watches `host` with an interval that no test lives through."""
    watcher = Watcher()
    call = a_control(host).watch_load(types_pb2.WatchLoadRequest(), watcher)
    watching = asyncio.create_task(call)
    yield watcher
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_what_changes_while_a_report_is_written_is_reported_next(host, watcher):
    assert (await watcher.arriving()).tasks == 0
    with host.request(a_request("r")) as events:
        await events.next()
        watcher.take()
        assert (await watcher.arriving()).tasks == 1


async def test_blocks_that_a_step_held_are_reported_as_free_after_it(host, watcher, runner):
    with host.request(a_request("r")) as events:
        await events.next()
    await watcher.until(lambda report: report.blocks.active and not report.tasks)
    runner.gate.release(10)
    watcher.take()
    await watcher.until(lambda report: not report.blocks.active)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 3601.0])
async def test_times_that_make_no_sense_are_refused(host, seconds):
    drained = []
    control = a_control(host, drained.append)
    with pytest.raises(InvalidRequestError, match="interval_s"):
        await control.watch_load(types_pb2.WatchLoadRequest(interval_s=seconds), Watcher())
    with pytest.raises(InvalidRequestError, match="grace_s"):
        await control.drain(types_pb2.DrainRequest(grace_s=seconds))
    assert drained == []


async def test_a_drain_is_meant_for_one_life_and_says_what_still_runs(host):
    drained = []
    control = a_control(host, drained.append)
    with pytest.raises(StaleIncarnationError):
        await control.drain(types_pb2.DrainRequest(incarnation="an earlier one"))
    answer = await control.drain(types_pb2.DrainRequest(incarnation="D", grace_s=2))
    assert (answer.incarnation, answer.running_requests) == ("D", 0)
    assert drained == [2]
