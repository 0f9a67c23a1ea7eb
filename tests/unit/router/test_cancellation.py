"""Clients that go away, and routers that are told to stop."""

import asyncio
import random

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from router_bench import bench
from router_fakes import ANSWER, OUTPUT, Script, hang, raising

from pdserve import errors
from pdserve.rpc.channel import open_channel
from pdserve.rpc.server import NOT_SERVING, SERVING
from pdserve.rpc.v1 import router_pb2


async def health_is(watch, status) -> None:
    """Waits, up to the deadline of the call, for the health service to say `status`."""
    while (await watch.read()).status != status:
        pass


@pytest.mark.parametrize(
    ("role", "step"),
    [
        ("prefill", "queued"),
        ("prefill", "started"),
        ("prefill", "first_token"),
        ("decode", "admitted"),
        ("decode", "kv_ready"),
        ("decode", 9),
        ("decode", "finished"),
    ],
)
async def test_a_cancel_at_any_step_ends_the_calls_on_both_instances(role: str, step) -> None:
    async with bench() as it:
        reached = asyncio.Event()

        async def stay() -> None:
            reached.set()
            await hang()

        fake = {"prefill": it.prefill, "decode": it.decode}[role][0]
        fake.scripts = [Script(before={step: stay})]
        call = it.aside.run(it.generate())
        await reached.wait()
        call.cancel()
        await it.until_quiet()
        assert it.metric("requests_total", outcome="cancelled") == 1
        if step in ("admitted", "kv_ready"):
            # Decode was bound, so the router knew of the transfer, and prefill still held the KV.
            assert it.prefill[0].released


async def test_cancels_at_random_moments_leave_nothing() -> None:
    chance = random.Random(7)
    async with bench(prefill=2, decode=2) as it:
        for fake in it.instances:
            broken = errors.UnavailableError("broken")
            moments = ["queued", "started", "first_token", "admitted", "kv_ready", 3, 30]
            fake.scripts = [
                Script(before={chance.choice(moments): raising(broken)} if number % 3 else {})
                for number in range(40)
            ]

        async def cancelled_after(events: int) -> None:
            call = it.stub.Generate(router_pb2.GenerateRequest(prompt="hello"), timeout=20)
            try:
                async for _ in call:
                    events -= 1
                    if events < 0:
                        break
            except aio.AioRpcError as error:
                # Four attempts may all have met a script that fails.
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            call.cancel()

        for _ in range(5):
            cuts = [chance.randrange(len(OUTPUT)) for _ in range(20)]
            await asyncio.gather(*(cancelled_after(cut) for cut in cuts))
        await it.until_quiet()
        for fake in it.instances:
            fake.scripts.clear()
        assert (await it.generate()).text == ANSWER


async def test_a_drain_refuses_what_is_new_and_finishes_what_runs() -> None:
    async with bench() as it:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            reached.set()
            await go_on.wait()

        it.decode[0].scripts = [Script(before={9: pause})]
        running = it.aside.run(it.generate())
        await reached.wait()
        async with open_channel(it.router.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="pdserve.v1.Inference")
            watch = health.Watch(request, timeout=20)
            await health_is(watch, SERVING)
            it.stop.set()
            await health_is(watch, NOT_SERVING)
            with pytest.raises(aio.AioRpcError) as raised:
                await it.generate()
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "draining" in raised.value.details()
            watch.cancel()
        go_on.set()
        assert (await running).text == ANSWER
        await it.served


async def test_what_outlives_the_grace_of_a_drain_is_cut() -> None:
    async with bench(drain_grace_s=0.1) as it:
        it.decode[0].scripts = [Script(before={9: hang})]
        running = it.aside.run(it.generate())
        await it.until(lambda: it.decode[0].running == 1)
        it.stop.set()
        await it.served
        with pytest.raises(aio.AioRpcError):
            await running
        await it.until(lambda: all(fake.running == 0 for fake in it.instances))


async def test_health_follows_whether_a_placement_is_possible() -> None:
    async with bench() as it, open_channel(it.router.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=20)
        await health_is(watch, SERVING)
        await it.decode[0].kill()
        await health_is(watch, NOT_SERVING)
        await it.decode[0].start()
        await health_is(watch, SERVING)
        watch.cancel()
