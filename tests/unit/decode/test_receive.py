"""A decode request that pulls its KV hears at once that its instance ends it."""

import asyncio
from types import SimpleNamespace

import pytest
from context_runner import ContextRunner, build_engine
from prometheus_client import CollectorRegistry

from pdserve.instance.engine_host import EngineHost
from pdserve.instance.instance import Instance, TransferCounts
from pdserve.instance.metrics import InstanceMetrics
from pdserve.instance.requests import RequestLimits
from pdserve.rpc.v1 import decode_pb2, types_pb2
from services.decode.servicer import DecodeServicer

PATIENCE_S = 30


class SilentSource:
    """Transfers whose pull begins and never ends by itself."""

    def __init__(self):
        self.pulling = asyncio.Event()
        self.cancelled = False

    async def pull(self, key, ref, source, admission, timeout_s):
        await admission
        self.pulling.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def settled(self, key):
        pass


class Context:
    """The side of a call that a servicer method sees."""

    def __init__(self):
        self.events = []
        self.status = None

    def time_remaining(self):
        return None

    async def write(self, event):
        self.events.append(event.WhichOneof("event"))

    async def abort(self, code, details, trailing_metadata):
        self.status = details
        raise asyncio.CancelledError


@pytest.fixture
async def host():
    host = EngineHost(build_engine(ContextRunner(4)), max_waiting=8)
    yield host
    assert await host.close(PATIENCE_S)


async def test_a_request_that_is_ended_while_it_pulls_ends_then(host):
    source, context = SilentSource(), Context()
    info = types_pb2.InstanceInfo(name="decode-0", incarnation="D")
    instance = Instance(info, RequestLimits(40, 128), host, lambda: TransferCounts(0, 0), 60.0)
    parts = SimpleNamespace(
        instance=instance,
        transfers=source,
        control=None,
        metrics=InstanceMetrics(CollectorRegistry(), "decode"),
    )
    request = decode_pb2.DecodeRequest(
        ref=types_pb2.RequestRef(request_id="r", attempt=1),
        prompt_token_ids=[1, 2, 3],
        kv_source=types_pb2.KvSource(address="there", incarnation="P", transfer_id="r/1"),
    )
    async with asyncio.timeout(PATIENCE_S):
        running = asyncio.create_task(DecodeServicer(parts).Run(request, context))
        await source.pulling.wait()
        host.end_requests("decode-0 ended its drain")
        with pytest.raises(asyncio.CancelledError):
            await running
    assert context.status == "decode-0 ended its drain"
    assert context.events == ["admitted"]
    assert source.cancelled
    assert host.requests == 0
