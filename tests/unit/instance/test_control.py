"""Load reports follow every change."""

import asyncio
import math
import threading
from dataclasses import replace

import pytest
from context_runner import GatedRunner, a_request, build_engine

from pdserve.errors import InvalidRequestError, StaleIncarnationError
from pdserve.instance.control import Control
from pdserve.instance.engine_host import EngineHost
from pdserve.instance.instance import Instance, TransferCounts
from pdserve.instance.requests import RequestLimits
from pdserve.kv.cache_log import MAX_READING, short_name
from pdserve.kv.prefix import HashChain
from pdserve.latency.online import MIN_DECODE_STEPS
from pdserve.rpc.v1 import types_pb2
from pdserve.scheduling.urgency import Priority, Urgency

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


def an_instance(host):
    info = types_pb2.InstanceInfo(name="decode-0", incarnation="D")
    return Instance(info, RequestLimits(40, 128), host, lambda: TransferCounts(0, 0), 60.0)


def a_control(host, drain=lambda _: None):
    return Control(an_instance(host), report_interval_s=10 * PATIENCE_S, drain=drain)


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


async def test_a_report_says_what_work_is_queued_and_which_objective_is_strictest(host, runner):
    instance, both = an_instance(host), threading.Event()
    host.submit(lambda _: both.wait(PATIENCE_S) and None)
    urgent = replace(a_request("b", range(5)), urgency=Urgency(Priority.HIGH), tpot_limit_s=0.25)
    with host.request(a_request("a", range(20))), host.request(urgent):
        both.set()
        await asyncio.to_thread(runner.entered.acquire)
        report = instance.report()
        assert [(work.priority, work.requests, work.tokens) for work in report.queued] == [
            (types_pb2.PRIORITY_HIGH, 1, 5),
            (types_pb2.PRIORITY_NORMAL, 1, 20),
        ]
        assert report.queued[0].squares == 25
        assert report.waiting_tokens == 25
        assert report.tpot_limit_s == 0.25
        runner.gate.release(20)


async def test_a_report_says_what_steps_cost_once_there_were_enough(host, runner):
    instance = an_instance(host)
    assert not instance.report().HasField("cost")
    runner.gate.release(100)
    with host.request(a_request("r", range(8), max_tokens=MIN_DECODE_STEPS + 1)) as events:
        while getattr(await events.next(), "finish_reason", None) is None:
            pass
    cost = instance.report().cost
    assert cost.decode_steps >= MIN_DECODE_STEPS
    assert cost.decode_base_s > 0
    assert (cost.prefill_steps, cost.prefill_base_s) == (0, 0.0)


async def test_who_asks_for_it_hears_what_the_prefix_cache_holds_and_then_what_changes(
    host, runner
):
    runner.gate.release(100)
    prompt = list(range(9))  # two full blocks
    names = {short_name(name) for name in HashChain("tokens", 4).upto(prompt, 8)}
    with host.request(a_request("r", prompt, max_tokens=1)) as events:
        await events.next()
        await events.next()
    watcher, known = Watcher(), set()
    call = a_control(host).watch_load(types_pb2.WatchLoadRequest(cache=True), watcher)
    watching = asyncio.create_task(call)
    first = await watcher.arriving()
    assert first.cache.reset
    known = set(first.cache.added)
    assert known == names
    with host.request(a_request("s", range(20, 29), max_tokens=1)):
        watcher.take()
        while len(known) < 4:
            report = await watcher.arriving()
            assert not report.cache.reset
            known |= set(report.cache.added)
            watcher.take()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert names < known


async def test_who_does_not_ask_hears_nothing_of_the_prefix_cache(watcher):
    assert not (await watcher.arriving()).HasField("cache")


async def test_a_large_cache_is_told_in_reports_that_follow_at_once(host):
    for number in range(2 * MAX_READING + 1):
        host.cache_log.added(number.to_bytes(16, "little"))
    watcher = Watcher()
    call = a_control(host).watch_load(types_pb2.WatchLoadRequest(cache=True), watcher)
    watching = asyncio.create_task(call)
    counts = []
    for _ in range(3):
        counts.append(len((await watcher.arriving()).cache.added))
        watcher.take()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert counts == [MAX_READING, MAX_READING, 1]


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
