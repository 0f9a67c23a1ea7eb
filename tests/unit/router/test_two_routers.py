"""Two routers over the same instances: they share nothing, and neither harms the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from grpc import aio
from prometheus_client import CollectorRegistry
from router_bench import SILENCE_S, Bench, Members, bench, tiny_model, until
from router_fakes import ANSWER, Script, hang, raising

from pdserve import errors
from pdserve.config import RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from services.router.breakers import BreakerState
from services.router.router import Router


@dataclass
class Second:
    """The other router, and a client of it."""

    router: Router
    metrics: CollectorRegistry
    stub: "router_pb2_grpc.InferenceAsyncStub"
    served: asyncio.Task

    async def generate(self, **fields) -> tuple[str, router_pb2.Finished]:
        request = router_pb2.GenerateRequest(**{"prompt": "hello"} | fields)
        text = ""
        async for event in self.stub.Generate(request, timeout=20):
            text += event.delta.text
        return text, event.finished


@asynccontextmanager
async def second(it: Bench, **options) -> AsyncIterator[Second]:
    defaults = {
        "silence_timeout_s": SILENCE_S,
        "placer": "least_load",
        "canary_interval_s": 0.0,
        "http": False,
    }
    metrics = CollectorRegistry()
    members = Members(it.instances)
    router = Router(RouterConfig(**defaults | options), tiny_model(), members, metrics)
    stop, listening = asyncio.Event(), asyncio.Event()
    served = asyncio.create_task(router.serve(stop, listening.set))
    try:
        await listening.wait()
        async with open_channel(router.address) as channel:
            stub = router_pb2_grpc.InferenceStub(channel)
            await until(lambda: len(router.fleet.instances()) == len(it.instances))
            yield Second(router, metrics, stub, served)
    finally:
        stop.set()
        await asyncio.gather(served, return_exceptions=True)


async def test_an_id_that_a_client_chose_may_run_through_both_at_once() -> None:
    async with bench(decode=2) as it, second(it) as other:
        met = asyncio.Barrier(2)
        for fake in it.decode:
            fake.scripts = [Script(before={12: met.wait}), Script(before={12: met.wait})]
        ref = types_pb2.RequestRef(request_id="mine")
        async with asyncio.TaskGroup() as group:
            one = group.create_task(it.generate(ref=ref))
            two = group.create_task(other.generate(ref=ref))
        assert one.result().text == two.result()[0] == ANSWER
        # To the instances they are two.
        ids = {each.ref.request_id for fake in it.prefill for each in fake.requests}
        assert len(ids) == 2


async def test_a_router_that_dies_takes_nobody_elses_requests_with_it() -> None:
    async with bench(decode=2) as it, second(it) as other:
        reached, go_on = [], asyncio.Event()

        async def wait() -> None:
            reached.append(1)
            await go_on.wait()

        for fake in it.decode:
            fake.scripts = [Script(before={12: wait}) for _ in range(8)]
        mine = [it.aside.run(it.generate()) for _ in range(3)]
        theirs = [it.aside.run(other.generate()) for _ in range(3)]
        await until(lambda: len(reached) == 6)
        other.served.cancel()
        await asyncio.gather(other.served, return_exceptions=True)
        lost = await asyncio.gather(*theirs, return_exceptions=True)
        assert {each.code() for each in lost if isinstance(each, aio.AioRpcError)} == {
            grpc.StatusCode.UNAVAILABLE
        }
        # What it had on the instances has ended there.
        await until(lambda: sum(fake.running for fake in it.decode) == 3)
        go_on.set()
        answers = await asyncio.gather(*mine)
        assert all(each.text == ANSWER for each in answers)
        assert all(len(each.finished.attempts) == 1 for each in answers)


async def test_each_sees_the_load_that_the_other_makes() -> None:
    """By the reports alone: the instance counts the requests of both."""
    async with bench(decode=2) as it, second(it) as other:
        reached = asyncio.Event()

        async def stay() -> None:
            it.decode[0].publish(running_requests=1)
            reached.set()
            await hang()

        it.decode[0].scripts = [Script(before={12: stay})]
        call = it.aside.run(it.generate())
        await reached.wait()
        await until(lambda: other.router.fleet.view().decode[0].load.requests == 1)
        _, finished = await other.generate()
        assert finished.attempts[0].decode == "decode-1"
        call.cancel()


async def test_both_send_canaries_and_each_of_them_one_at_a_time() -> None:
    often = {"canary_interval_s": 0.05}
    async with bench(prefill=2, decode=2, **often) as it, second(it, **often) as other:
        most = 0

        def passed(metrics: CollectorRegistry) -> float:
            nonlocal most
            most = max(most, sum(fake.running for fake in it.prefill))
            name = "pdserve_router_canaries_total"
            return metrics.get_sample_value(name, {"outcome": "passed"}) or 0.0

        await until(lambda: passed(it.metrics) >= 2 and passed(other.metrics) >= 2)
        assert most <= 2


async def test_what_one_has_found_broken_the_other_finds_for_itself() -> None:
    never = {"breaker_failures": 1, "breaker_cooldown_s": 3600.0}
    async with bench(**never) as it, second(it, **never) as other:
        broken = errors.TransferError("digest mismatch")
        it.decode[0].scripts = [Script(before={"kv_ready": raising(broken)})]
        assert (await it.generate()).text == ANSWER
        pair = [fake.report.info.incarnation for fake in it.instances]
        assert it.router.breakers.state(*pair) is BreakerState.OPEN
        assert other.router.breakers.state(*pair) is BreakerState.CLOSED
        text, finished = await other.generate()
        assert text == ANSWER
        assert finished.attempts[0].rung == "remote"


@pytest.mark.parametrize("step", ["queued", 12])
async def test_both_survive_the_death_of_an_instance(step) -> None:
    async with bench(decode=2) as it, second(it) as other:
        reached = []

        async def wait() -> None:
            reached.append(1)
            await hang()

        it.decode[0].scripts = [Script(before={step: wait}) for _ in range(2)]
        mine = it.aside.run(it.generate())
        theirs = it.aside.run(other.generate())
        await until(lambda: len(reached) == 2)
        await it.decode[0].kill()
        assert (await mine).text == (await theirs)[0] == ANSWER
        assert "decode-0: lost" in (await mine).finished.attempts[0].failure
