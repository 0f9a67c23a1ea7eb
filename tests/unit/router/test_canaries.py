"""Canaries: what they try, what they tell, and that nobody else notices them."""

import asyncio

import grpc
import pytest
from grpc import aio
from router_bench import CONTEXT, VOCAB, Bench, bench
from router_fakes import ANSWER, FakePrefill, Script, hang, raising

from pdserve import errors
from pdserve.config import RouterConfig
from pdserve.rpc.v1 import router_pb2, types_pb2
from services.router.breakers import BreakerState
from services.router.canary import DEADLINE_S
from services.router.knowledge import Knowledge

BROKEN = errors.TransferError("digest mismatch")
OFTEN = {"canary_interval_s": 0.05}
# Nobody is tried again within a test unless it waits for it.
QUICK = {"breaker_failures": 2, "breaker_cooldown_s": 0.1}
NEVER = {"breaker_failures": 2, "breaker_cooldown_s": 3600.0}


def canaries(it: Bench, outcome: str = "passed") -> float:
    return it.metric("canaries_total", outcome=outcome)


def state(it: Bench, prefill: int = 0, decode: int = 0) -> BreakerState:
    return it.router.breakers.state(
        it.prefill[prefill].report.info.incarnation, it.decode[decode].report.info.incarnation
    )


def broken() -> Script:
    return Script(before={"kv_ready": raising(BROKEN)})


async def break_pairs(it: Bench, failures: int = 2, *then: Script) -> None:
    """Lets so many requests fail at their hand-off to decode-0; decode then does both phases.

    `then` is what the calls after those do.
    """
    it.decode[0].scripts = [broken(), Script()] * failures + [*then]
    for _ in range(failures):
        answer = await it.generate()
        assert answer.text == ANSWER
        assert [each.rung for each in answer.finished.attempts] == ["remote", "local"]


async def test_idle_pairs_are_measured_by_the_smallest_real_request() -> None:
    async with bench(prefill=2, decode=2, **OFTEN) as it:
        await it.until(lambda: canaries(it) >= 4)
        prefilled = [request for fake in it.prefill for request in fake.requests]
        decoded = [request for fake in it.decode for request in fake.requests]
        pairs = {(request.kv_source.incarnation, request.ref.incarnation) for request in decoded}
        assert len(pairs) == 4  # each pair once before any is tried again
        for request in prefilled:
            assert len(request.prompt_token_ids) == 64
            assert max(request.prompt_token_ids) < VOCAB
            assert request.sampling.max_tokens == 2
            assert request.urgency.priority == types_pb2.PRIORITY_LOW
        # No prefix cache knows them.
        first = [tuple(request.prompt_token_ids[:16]) for request in prefilled]
        assert len(set(first)) == len(first)


async def test_clients_metrics_do_not_know_of_canaries() -> None:
    async with bench(**OFTEN) as it:
        await it.until(lambda: canaries(it) >= 3)
        samples = [sample for metric in it.metrics.collect() for sample in metric.samples]
        for name in ("requests_total", "tokens_total", "attempts_total", "ttft_seconds_count"):
            of_name = [each.value for each in samples if each.name == f"pdserve_router_{name}"]
            assert sum(of_name) == 0, name
        assert it.router.requests.running == 0


async def test_what_requests_are_like_is_learned_from_clients_alone() -> None:
    async with bench(**OFTEN) as it:
        await it.until(lambda: canaries(it) >= 3)
        knowledge = it.router.fleet.instances()[0].knowledge
        assert knowledge.habits == Knowledge(RouterConfig()).habits
        before = knowledge.habits.output_tokens
        # Decode never says that a request which a stop string ended has finished.
        await it.generate(stop=[ANSWER[3]])
        assert knowledge.habits.output_tokens < before


async def test_a_canary_fits_in_the_context() -> None:
    async with bench(canary_tokens=1 << 16, **OFTEN) as it:
        await it.until(lambda: canaries(it) >= 1)
        assert len(it.prefill[0].requests[0].prompt_token_ids) == CONTEXT - 2


async def test_there_are_none_where_none_are_wanted() -> None:
    async with bench(canary_interval_s=0.0) as it:
        assert (await it.generate()).text == ANSWER
        assert canaries(it) == 0


async def test_a_pair_that_carries_requests_needs_none() -> None:
    async with bench(canary_interval_s=3600.0) as it:
        await it.until(lambda: canaries(it) >= 1)  # it had never been measured
        pairs = len(it.decode[0].requests)
        assert (await it.generate()).text == ANSWER
        assert len(it.decode[0].requests) == pairs + 1
        assert canaries(it) == 1


async def test_where_work_waits_nobody_sends_canaries() -> None:
    async with bench(prefill=2, **OFTEN) as it:
        await it.until(lambda: canaries(it) >= 2)
        it.prefill[0].publish(waiting_tokens=1000)
        load = lambda: {  # noqa: E731
            each.name: each.load.waiting_tokens for each in it.router.fleet.view().prefill
        }
        await it.until(lambda: load()["prefill-0"] == 1000)
        await it.until_quiet()
        before = len(it.prefill[0].requests)
        sent = canaries(it)
        await it.until(lambda: canaries(it) >= sent + 2)
        assert len(it.prefill[0].requests) == before


async def test_draining_instances_get_none() -> None:
    async with bench(decode=2, **OFTEN) as it:
        it.decode[0].publish(draining=True)
        await it.until_state(it.decode[0], "draining")
        await it.until_quiet()
        before, sent = len(it.decode[0].requests), canaries(it)
        await it.until(lambda: canaries(it) >= sent + 2)
        assert len(it.decode[0].requests) == before


async def test_one_at_a_time_and_a_router_that_drains_takes_its_canary_back() -> None:
    async with bench(prefill=2, decode=2, **OFTEN) as it:
        hanging: list[FakePrefill] = []

        def stay_on(fake: FakePrefill):
            async def action() -> None:
                hanging.append(fake)
                await hang()

            return action

        for fake in it.prefill:
            fake.scripts = [Script(before={"first_token": stay_on(fake)}) for _ in range(3)]
        # Decode has been called: the router knows that prefill holds something.
        await it.until(lambda: hanging and any(fake.requests for fake in it.decode))
        it.stop.set()
        await asyncio.wait_for(it.served, 10)
        await it.until(lambda: not any(fake.running for fake in it.instances))
        (fake,) = hanging
        # Prefill was told to let go of what decode will not pull.
        last = fake.requests[-1].ref.request_id
        await it.until(lambda: last in [each.ref.request_id for each in fake.released])


async def test_pairs_whose_hand_offs_fail_are_not_used() -> None:
    async with bench(prefill=1, decode=2, placer="predictive", **NEVER) as it:
        it.decode[1].publish(draining=True)
        await it.until_state(it.decode[1], "draining")
        await break_pairs(it)
        assert state(it) is BreakerState.OPEN
        assert it.metric("breakers", state="open") == 1
        before = len(it.prefill[0].requests)
        answer = await it.generate()
        assert answer.finished.attempts[0].rung == "local"
        assert len(it.prefill[0].requests) == before
        it.decode[1].publish(draining=False)
        await it.until_state(it.decode[1], "up")
        answer = await it.generate()
        (attempt,) = answer.finished.attempts
        assert (attempt.rung, attempt.decode) == ("remote", "decode-1")
        cluster = await it.stub.GetCluster(router_pb2.GetClusterRequest(), timeout=20)
        assert [each.detail for each in cluster.instances] == ["", "every hand-off fails", ""]


async def test_a_canary_that_passes_opens_the_way_again() -> None:
    async with bench(**QUICK) as it:
        await break_pairs(it)
        await it.until(lambda: state(it) is BreakerState.CLOSED)
        assert canaries(it) == 1
        # On probation: one more failure, and it is left alone again.
        await break_pairs(it, failures=1)
        await it.until(lambda: canaries(it) == 2 and state(it) is BreakerState.CLOSED)
        # A request that gets through ends that.
        assert (await it.generate()).text == ANSWER
        assert len(it.router.breakers) == 0


async def test_a_canary_that_fails_leaves_it_shut() -> None:
    async with bench(**QUICK) as it:
        await break_pairs(it, 2, broken(), broken())
        await it.until(lambda: state(it) is BreakerState.CLOSED)
        assert (canaries(it, "failed"), canaries(it)) == (2, 1)


async def test_a_canary_that_meets_a_full_instance_tells_nothing() -> None:
    async with bench(**QUICK) as it:
        full = errors.OverloadedError("queue is full")
        it.prefill[0].scripts = [Script(), Script(), Script(before={"queued": raising(full)})]
        await break_pairs(it)
        await it.until(lambda: state(it) is BreakerState.CLOSED)
        assert (canaries(it, "undecided"), canaries(it)) == (1, 1)


@pytest.mark.parametrize(
    ("step", "fake", "outcome"),
    [("queued", "prefill", "undecided"), ("kv_ready", "decode", "failed")],
)
async def test_a_canary_that_hangs_is_given_up(monkeypatch, step, fake, outcome) -> None:
    """In prefill's queue that means nothing; after decode's admission, the hand-off hangs."""
    monkeypatch.setattr("services.router.canary.DEADLINE_S", 0.2)
    assert DEADLINE_S > 1
    async with bench(silence_timeout_s=60.0, **OFTEN) as it:
        getattr(it, fake)[0].scripts = [Script(before={step: hang})]
        await it.until(lambda: canaries(it, outcome) == 1)
        await it.until_quiet()


async def test_failing_canaries_find_a_broken_pair_before_requests_do() -> None:
    async with bench(**OFTEN, **NEVER) as it:
        it.decode[0].scripts = [broken() for _ in range(9)]
        await it.until(lambda: state(it) is BreakerState.OPEN)
        await it.until(lambda: canaries(it, "failed") >= 2)


async def test_the_death_of_an_instance_or_its_load_is_no_failed_hand_off() -> None:
    async with bench(decode=2, **NEVER) as it:
        full = errors.OverloadedError("queue is full")
        gone = errors.UnavailableError("draining")
        it.decode[0].scripts = [
            Script(before={"queued": raising(error)}) for error in (full, gone, full, gone)
        ]
        for _ in range(4):
            assert (await it.generate()).text == ANSWER
        assert len(it.router.breakers) == 0


async def test_pairs_of_an_instance_that_is_gone_are_forgotten() -> None:
    async with bench(decode=2, **NEVER) as it:
        it.decode[1].publish(draining=True)
        await it.until_state(it.decode[1], "draining")
        await break_pairs(it)
        assert it.metric("breakers", state="open") == 1
        await it.decode[0].kill()
        await it.decode[0].start()  # another incarnation
        await it.until_state(it.decode[0], "up")
        await it.until(lambda: len(it.router.breakers) == 0)


async def test_a_request_is_lost_only_where_nothing_can_serve_it() -> None:
    """Every pair is open: decode does both phases, and the router stays ready."""
    async with bench(placer="predictive", placement_timeout_s=0.2, **NEVER) as it:
        await break_pairs(it)
        assert state(it) is BreakerState.OPEN
        assert (await it.generate()).finished.attempts[0].rung == "local"
        cluster = await it.stub.GetCluster(router_pb2.GetClusterRequest(), timeout=20)
        assert {(each.state, each.detail) for each in cluster.instances} == {
            ("up", "every hand-off fails")
        }
        assert [each.breaker for each in cluster.links] == ["open"]
        models = await it.stub.ListModels(router_pb2.ListModelsRequest(), timeout=20)
        assert models.models[0].ready
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
