"""A drain lets requests finish, for as long as it was given."""

import asyncio

import pytest
from context_runner import GatedRunner, a_request, build_engine

from pdserve.errors import UnavailableError
from pdserve.instance.engine_host import EngineHost
from pdserve.instance.instance import Instance, TransferCounts
from pdserve.instance.life import Drain
from pdserve.instance.requests import RequestLimits
from pdserve.rpc.v1 import types_pb2
from pdserve.scheduling.sequence import Work

PATIENCE_S = 30
LONG_S = 10 * PATIENCE_S


@pytest.fixture
async def instance():
    host = EngineHost(build_engine(GatedRunner(4)), max_waiting=8)
    info = types_pb2.InstanceInfo(name="decode-0", incarnation="D")
    yield Instance(info, RequestLimits(40, 128), host, lambda: TransferCounts(0, 0), 60.0)
    assert await host.close(PATIENCE_S)


async def test_it_ends_when_the_last_request_does(instance):
    drain = Drain(instance, LONG_S)
    with instance.host.request(a_request("r", work=Work.DECODE)) as events:
        await events.next()
        drain.begin(None)
        assert instance.draining.is_set()
        assert not instance.healthy
        with pytest.raises(UnavailableError, match="draining"):
            instance.check_accepts(types_pb2.RequestRef())
    await asyncio.wait_for(drain.finished(), PATIENCE_S)


async def test_what_still_runs_at_the_end_of_the_grace_is_ended(instance):
    drain = Drain(instance, LONG_S)
    with instance.host.request(a_request("r", work=Work.DECODE)) as events:
        await events.next()
        drain.begin(0.01)
        with pytest.raises(UnavailableError, match="ended its drain"):
            await asyncio.wait_for(events.next(), PATIENCE_S)


async def test_a_further_call_shortens_it_and_never_prolongs_it(instance):
    drain = Drain(instance, 0.01)
    with instance.host.request(a_request("r", work=Work.DECODE)) as events:
        await events.next()
        drain.begin(LONG_S)
        drain.begin(None)
        drain.begin(LONG_S)
        await asyncio.wait_for(drain.finished(), PATIENCE_S)
        with pytest.raises(UnavailableError, match="ended its drain"):
            await events.next()
