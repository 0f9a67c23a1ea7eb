"""Instances that fall silent, restart, drain, or are not what they are listed as."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from router_bench import Bench, bench, tiny_model
from router_fakes import ANSWER, Script, hang

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.config import RouterConfig
from pdserve.errors import IncompatibleLayoutError
from pdserve.rpc.v1 import types_pb2
from services.router import watcher
from services.router.knowledge import Knowledge


@pytest.mark.parametrize("step", ["queued", "kv_ready", 12])
async def test_a_stopped_decode_loses_its_requests_within_the_silence_timeout(step) -> None:
    async with bench(decode=2) as it:

        async def freeze() -> None:
            it.decode[0].awake.clear()

        it.decode[0].scripts = [Script(before={step: freeze})]
        answer = await it.generate()
        assert answer.text == ANSWER
        assert "lost: no report" in answer.finished.attempts[0].failure
        assert it.metric("retries_total", cause="silent") >= 1
        assert it.state(it.decode[0]) == "silent"
        it.decode[0].awake.set()
        await it.until_state(it.decode[0], "up")


async def test_a_stopped_prefill_loses_its_requests() -> None:
    async with bench(prefill=2) as it:

        async def freeze() -> None:
            it.prefill[0].awake.clear()

        it.prefill[0].scripts = [Script(before={"first_token": freeze})]
        answer = await it.generate()
        assert answer.text == ANSWER
        assert [each.prefill for each in answer.finished.attempts] == ["prefill-0", "prefill-1"]
        it.prefill[0].awake.set()


async def test_a_new_incarnation_fails_what_ran_on_the_old_one() -> None:
    async with bench(decode=2) as it:

        async def reincarnate() -> None:
            # The old call hangs on, as with a peer that the network hides.
            it.decode[0].report.info.incarnation = "second"
            it.decode[0].publish()
            await hang()

        it.decode[0].scripts = [Script(before={12: reincarnate})]
        answer = await it.generate()
        assert answer.text == ANSWER
        assert "another incarnation" in answer.finished.attempts[0].failure


async def test_an_instance_that_leaves_the_cluster_is_given_up_and_one_that_joins_is_used() -> None:
    async with bench(decode=2) as it:
        it.members.change(it.prefill)
        await it.until(lambda: len(it.router.fleet.status()) == 1)
        it.members.change([*it.prefill, it.decode[1]])
        await it.until_state(it.decode[1], "up")
        reached = asyncio.Event()

        async def stay() -> None:
            reached.set()
            await hang()

        it.decode[1].scripts = [Script(before={12: stay})]
        answer = it.aside.run(it.generate())
        await reached.wait()
        it.members.change([*it.prefill, it.decode[0]])
        attempts = (await answer).finished.attempts
        assert answer.result().text == ANSWER
        assert [each.decode for each in attempts] == ["decode-1", "decode-0"]
        assert "no longer watches" in attempts[0].failure


async def test_a_step_that_does_not_end_makes_an_instance_silent() -> None:
    async with bench(decode=2, step_timeout_s=30.0) as it:

        async def stick() -> None:
            it.decode[0].publish(step_age_s=31.0)
            await hang()

        it.decode[0].scripts = [Script(before={12: stick})]
        answer = await it.generate()
        assert answer.text == ANSWER
        assert "its step has not ended for 31.0 s" in answer.finished.attempts[0].failure
        assert it.metric("retries_total", cause="lost") == 1
        assert it.state(it.decode[0]) == "silent"
        it.decode[0].publish(step_age_s=0.0)
        await it.until_state(it.decode[0], "up")


async def test_a_draining_instance_finishes_what_it_has_and_gets_nothing_new() -> None:
    async with bench(decode=2) as it:

        async def drain() -> None:
            it.decode[0].publish(draining=True)
            await it.until_state(it.decode[0], "draining")

        it.decode[0].scripts = [Script(before={12: drain})]
        first = await it.generate()
        second = await it.generate()
        assert first.text == second.text == ANSWER
        assert [len(each.finished.attempts) for each in (first, second)] == [1, 1]
        assert second.finished.attempts[0].decode == "decode-1"


async def test_a_load_stream_whose_life_is_over_is_opened_again_unnoticed(monkeypatch) -> None:
    monkeypatch.setattr(watcher, "_STREAM_LIFE_S", 0.05)
    async with bench() as it:
        seen = set()
        await it.until(lambda: seen.add(it.state(it.decode[0])) or it.decode[0].watches >= 3)
        assert seen == {"up"}
        assert (await it.generate()).text == ANSWER


async def test_an_instance_of_the_other_role_is_not_used() -> None:
    async with bench(prefill=2) as it:
        it.prefill[0].role = Role.DECODE  # it is listed as that, and serves prefill
        it.members.change(it.instances)
        await it.until_state(it.prefill[0], "down")
        answer = await it.generate()
        assert answer.finished.attempts[0].prefill == "prefill-1"
        (status,) = [each for each in it.router.fleet.status() if each.state == "down"]
        assert status.detail == "it is listed as decode, but does not serve decode"
        assert (status.name, status.role) == ("prefill-0", types_pb2.ROLE_DECODE)


async def test_incompatible_layouts_do_not_pair() -> None:
    async with bench(prefill=2) as it:
        it.prefill[0].report.info.layout.fingerprint = "another model"
        await it.prefill[0].kill()
        await it.until_state(it.prefill[0], "down")
        await it.prefill[0].start()
        await it.until_state(it.prefill[0], "up")
        answer = await it.generate()
        assert answer.finished.attempts[0].prefill == "prefill-1"


async def test_requests_in_flight_count_until_a_report_covers_them() -> None:
    async with bench(decode=2, silence_timeout_s=60.0, silence_floor_s=60.0) as it:
        # Reports come so seldom that only the router's own account can spread the requests.
        for fake in it.decode:
            fake.scripts = [Script(before={5: hang}) for _ in range(4)]
        calls = [it.aside.run(it.generate()) for _ in range(8)]
        await it.until(lambda: sum(fake.running for fake in it.decode) == 8)
        assert [fake.running for fake in it.decode] == [4, 4]
        for call in calls:
            call.cancel()


async def test_a_watcher_ends_at_whatever_step_it_is_cancelled(monkeypatch) -> None:
    """Where nobody listens it is busy with errors all the time."""

    class Refused:
        def cancel(self) -> None:
            pass

        async def __aiter__(self):
            await asyncio.sleep(0)
            raise IncompatibleLayoutError("of the wrong kind")
            yield

    monkeypatch.setattr(watcher.Watcher, "_open", lambda *_: Refused())
    monkeypatch.setattr(watcher, "_RECONNECT_PAUSE_S", 0)
    address = InstanceAddress(Role.DECODE, "127.0.0.1:1", "nobody")
    config = RouterConfig()
    for steps in range(30):
        it = watcher.Watcher(
            address, config, tiny_model(), Knowledge(config), None, on_change=lambda: None
        )
        task = asyncio.create_task(it.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled(), steps


async def test_an_instance_behind_two_addresses_is_one_and_outlives_either() -> None:
    async with bench() as it:
        only = it.decode[0].address
        twin = replace(only, address=only.address.replace("127.0.0.1", "localhost"), name="twin")
        both = (*(fake.address for fake in it.instances), twin)
        it.members.name(both)

        def states() -> dict[str, str]:
            return {each.name: each.state for each in it.router.fleet.status()}

        await it.until(lambda: states().get("twin") == "down")
        assert states()[only.name] == "up"
        detail = {each.name: each.detail for each in it.router.fleet.status()}["twin"]
        assert detail == "another address leads to the same instance"
        it.members.name(address for address in both if address != only)
        await it.until(lambda: states().get("twin") == "up")
        assert (await it.generate()).text == ANSWER


def detail_of(it: Bench, fake) -> str:
    status = it.router.fleet.status()
    return next(each.detail for each in status if each.address == fake.address.address)


@pytest.mark.parametrize("met_before", [True, False])
async def test_a_report_that_nobody_foresaw_costs_its_instance_and_not_the_router(
    monkeypatch: pytest.MonkeyPatch, met_before: bool
) -> None:
    async with bench(decode=2) as it:
        if not met_before:
            it.members.change([*it.prefill, it.decode[1]])
            await it.until(lambda: len(it.router.fleet.instances()) == 2)
        taken, bad = Knowledge.cached, it.decode[0].report.info.incarnation

        def fail(self, role, incarnation, changes) -> None:
            if incarnation == bad:
                raise ValueError("unforeseen")
            taken(self, role, incarnation, changes)

        monkeypatch.setattr(Knowledge, "cached", fail)
        it.members.change(it.instances)
        it.decode[0].publish()
        await it.until_state(it.decode[0], "down")
        await it.until(lambda: "unforeseen" in detail_of(it, it.decode[0]))
        assert (await it.generate()).finished.attempts[0].decode == "decode-1"
        monkeypatch.undo()
        await it.until_state(it.decode[0], "up")


async def test_kv_counts_as_under_way_from_the_decision_until_it_has_landed() -> None:
    async with bench() as it:
        prefill, decode = (each.report.info.incarnation for each in it.instances)
        links = it.router.fleet.instances()[0].knowledge.links
        row, column = (
            np.array([side[each]])
            for side, each in ((links.prefills, prefill), (links.decodes, decode))
        )
        seen = []

        async def look() -> None:
            seen.append(float(links.estimates(row, column).in_flight_bytes[0, 0]))

        it.prefill[0].scripts = [Script(before={"queued": look})]
        it.decode[0].scripts = [Script(before={"kv_ready": look})]
        await it.generate("hello")
        await look()
        layout = it.router.fleet.instances()[1].layout
        assert seen == [5 * layout.token_bytes, 5 * layout.token_bytes, 0]
