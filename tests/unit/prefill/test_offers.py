"""What a prefill instance offers, however quick its engine is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import torch
from prometheus_client import CollectorRegistry

from pdserve.config import InstanceConfig
from pdserve.errors import InvalidRequestError
from pdserve.instance.control import Control
from pdserve.instance.engine_host import EngineHost
from pdserve.instance.instance import Instance
from pdserve.instance.life import Parts
from pdserve.instance.loading import make_engine
from pdserve.instance.metrics import InstanceMetrics
from pdserve.instance.requests import RequestLimits
from pdserve.kv.backend import make_backend
from pdserve.kv.config import TransferConfig
from pdserve.kv.sender import Sender
from pdserve.rpc.v1 import prefill_pb2, types_pb2
from services.prefill.servicer import PrefillServicer
from services.prefill.transfers import PrefillTransfers
from tests.doubles.context_engine import Pace, load_context_engine
from tests.doubles.holds import Holds

pytestmark = pytest.mark.model

CONFIG = InstanceConfig()
REQUEST = prefill_pb2.PrefillRequest(
    ref=types_pb2.RequestRef(request_id="r", attempt=1),
    prompt_token_ids=range(1000, 1040),
    sampling=types_pb2.Sampling(temperature=0, max_tokens=5),
)


class Writes:
    """The server's side of a call: what was written to the client."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[prefill_pb2.PrefillEvent] = asyncio.Queue()

    async def write(self, event: prefill_pb2.PrefillEvent) -> None:
        self.events.put_nowait(event)


@asynccontextmanager
async def prefill() -> AsyncIterator[tuple[PrefillServicer, PrefillTransfers, EngineHost]]:
    pace, holds = Pace(0, 0), Holds(lambda _: None)
    loaded = load_context_engine(CONFIG, pace, holds, blocks=100, head_dim=4)
    config = TransferConfig()
    backend = make_backend(torch.device("cpu"), config)
    sender = Sender("me", loaded.layout, 0, loaded.pool, backend, config)
    await sender.start()
    transfers = PrefillTransfers(sender, loaded.pool)
    host = EngineHost(make_engine(CONFIG, loaded, transfers.listener), max_waiting=16)
    limits = RequestLimits(loaded.vocab_size, loaded.max_model_len)
    info = types_pb2.InstanceInfo(incarnation="me")
    instance = Instance(info, limits, host, transfers.counts, step_timeout_s=60)
    control = Control(instance, 1.0, lambda _: None)
    metrics = InstanceMetrics(CollectorRegistry(), "prefill")
    try:
        yield (
            PrefillServicer(Parts(CONFIG, instance, transfers, control, metrics)),
            transfers,
            host,
        )
    finally:
        await host.close(5)
        await transfers.close()


async def test_the_blocks_of_an_engine_that_admits_at_once_are_offered(monkeypatch) -> None:
    async with prefill() as (servicer, transfers, host):
        submit = host.submit

        def submit_and_dawdle(command) -> None:
            submit(command)
            time.sleep(0.05)  # the thread of the engine gets ahead of the loop

        monkeypatch.setattr(host, "submit", submit_and_dawdle)
        writes = Writes()
        call = asyncio.create_task(servicer.Run(REQUEST, writes))
        started = (await writes.events.get()).started
        offer = transfers._offers[started.transfer_id]
        assert len(offer.blocks) == 3
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_a_request_that_runs_is_not_offered_twice() -> None:
    async with prefill() as (servicer, transfers, _):
        writes = Writes()
        call = asyncio.create_task(servicer.Run(REQUEST, writes))
        await writes.events.get()
        with pytest.raises(InvalidRequestError, match="already running"):
            await servicer.Run.__wrapped__(servicer, REQUEST, Writes())
        assert transfers.sender.counts.offers == 1
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert transfers.sender.counts.offers == 0
