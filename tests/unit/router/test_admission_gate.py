"""The gate: how many run, how many wait, and what becomes of those for whom there is no room."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.errors import OverloadedError, UnavailableError
from pdserve.rpc.v1.types_pb2 import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NORMAL
from services.router.admission.fair_queue import Ticket
from services.router.admission.gate import Gate
from services.router.admission.pace import Pace

CLASSES = (PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_HIGH)


class Clock:
    """Stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Guest:
    """A request at the gate."""

    def __init__(self, gate: Gate, ticket: Ticket) -> None:
        self.inside = False
        self.times_inside = 0
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(gate, ticket))

    async def _visit(self, gate: Gate, ticket: Ticket) -> None:
        async with gate.enter(ticket):
            self.inside = True
            self.times_inside += 1
            try:
                await self._leave.wait()
            finally:
                self.inside = False

    def leave(self) -> None:
        self._leave.set()


class Party:
    """A gate with its guests."""

    def __init__(self, max_running: int, max_queued: int) -> None:
        self.clock = Clock()
        self.pace = Pace()
        self.gate = Gate(max_running, max_queued, self.pace, self.clock)
        self.guests: list[Guest] = []

    async def come(self, client: str = "a", **fields) -> Guest:
        return await self.settled(self.bring(client, **fields))

    def bring(
        self, client: str = "a", weight: float = 1.0, priority=PRIORITY_NORMAL, **fields
    ) -> Guest:
        ticket = Ticket(client, weight, priority, **{"tokens": 1} | fields)
        self.guests.append(Guest(self.gate, ticket))
        return self.guests[-1]

    async def settled(self, guest: Guest) -> Guest:
        for _ in range(10):
            await asyncio.sleep(0)
        return guest

    @property
    def inside(self) -> list[Guest]:
        return [guest for guest in self.guests if guest.inside]

    @property
    def outside(self) -> list[Guest]:
        return [guest for guest in self.guests if not guest.inside and not guest.task.done()]

    async def end(self) -> None:
        for guest in self.guests:
            guest.task.cancel()
        await asyncio.gather(*(guest.task for guest in self.guests), return_exceptions=True)
        assert (self.gate.running, self.gate.queued) == (0, 0)


@pytest.fixture
async def parties():
    async with AsyncExitStack() as stack:

        def make(max_running: int, max_queued: int) -> Party:
            party = Party(max_running, max_queued)
            stack.push_async_callback(party.end)
            return party

        yield make


async def test_whoever_leaves_lets_the_next_in(parties) -> None:
    party = parties(2, 5)
    first, second, third, fourth = [await party.come() for _ in range(4)]
    assert party.inside == [first, second]
    assert (party.gate.running, party.gate.queued) == (2, 2)
    second.leave()
    await party.settled(third)
    assert party.inside == [first, third]
    first.leave()
    third.leave()
    await party.settled(fourth)
    assert party.inside == [fourth]
    assert (party.gate.running, party.gate.queued) == (1, 0)


async def test_a_slot_that_was_given_to_who_has_just_left_goes_on(parties) -> None:
    party = parties(1, 5)
    first, second, third = [await party.come() for _ in range(3)]
    first.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the slot is second's, which does not know it yet
    second.task.cancel()
    await party.settled(third)
    assert party.inside == [third]
    assert second.times_inside == 0


async def test_waiting_for_too_long_is_a_refusal_where_an_slo_is_hard(parties) -> None:
    party = parties(1, 5)
    await party.come()
    late = await party.come(start_by=party.clock.now - 1)
    with pytest.raises(OverloadedError, match="TTFT objective") as refused:
        await late.task
    assert refused.value.field == "slo.ttft_ms"
    assert refused.value.retry_after_s > 0
    assert party.gate.queued == 0


async def test_a_full_queue_refuses_and_says_when_it_will_be_empty(parties) -> None:
    party = parties(2, 3)
    for _ in range(2):
        guest = await party.come()
        party.clock.now += 8.0
        guest.leave()
        await party.settled(guest)
    for _ in range(5):
        await party.come()
    refused = await party.come()
    with pytest.raises(OverloadedError, match=r"2 requests run \(max_running\) and 3 wait") as full:
        await refused.task
    assert full.value.field == "max_queued"
    # Two at once of 8 s each, 3 of which wait and one that would come.
    assert full.value.retry_after_s == pytest.approx(8.0 / 2 * 4)


async def test_nobody_waits_where_nobody_may(parties) -> None:
    party = parties(1, 0)
    guest = await party.come()
    with pytest.raises(OverloadedError):
        await (await party.come()).task
    guest.leave()
    await party.settled(guest)
    assert (await party.come()).inside


async def test_a_flood_makes_room_for_others_in_a_full_queue(parties) -> None:
    party = parties(1, 4)
    await party.come("flood")
    flood = [await party.come("flood") for _ in range(4)]
    calm = [await party.come("calm") for _ in range(3)]
    # Each has its half of the queue: the newest of the flood have gone for them.
    for guest in (flood[3], flood[2], calm[2]):
        with pytest.raises(OverloadedError):
            await guest.task
    assert party.outside == [*flood[:2], *calm[:2]]


async def test_a_gate_that_closes_refuses_who_waits_and_lets_finish_who_runs(parties) -> None:
    party = parties(1, 5)
    inside, waits = [await party.come() for _ in range(2)]
    party.gate.close()
    with pytest.raises(UnavailableError, match="draining"):
        await waits.task
    with pytest.raises(UnavailableError, match="draining"):
        await (await party.come()).task
    assert inside.inside
    inside.leave()
    await inside.task


# Who comes, with what; or which of those that are there leaves, or gives up.
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("come"),
            st.sampled_from("abc"),
            st.sampled_from([0.5, 1.0, 2.0]),
            st.sampled_from(CLASSES),
            st.integers(1, 100),
        ),
        st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 20)),
        st.tuples(st.just("settle")),
    ),
    max_size=60,
)


@given(st.integers(1, 3), st.integers(0, 4), steps)
def test_whatever_happens_slots_are_neither_lost_nor_given_twice(
    max_running: int, max_queued: int, happenings
) -> None:
    async def play() -> None:
        party = Party(max_running, max_queued)
        for step in [*happenings, ("settle",)]:
            if step[0] == "come":
                _, client, weight, priority, tokens = step
                party.bring(client, weight, priority, tokens=tokens)
            elif step[0] == "settle":
                await party.settled(party)
                # No wake-up is lost: nobody waits beside a free slot.
                assert party.gate.queued == len(party.outside) <= max_queued
                assert party.gate.running == len(party.inside)
                assert not party.outside or len(party.inside) == max_running
            elif here := [guest for guest in party.guests if not guest.task.done()]:
                guest = here[step[1] % len(here)]
                guest.leave() if step[0] == "leave" else guest.task.cancel()
            assert len(party.inside) <= party.gate.running <= max_running
        for _ in party.guests:
            for guest in party.inside:
                guest.leave()
            await party.settled(party)
        assert all(guest.task.done() for guest in party.guests)
        assert all(guest.times_inside <= 1 for guest in party.guests)
        refused = {
            type(guest.task.exception())
            for guest in party.guests
            if not guest.task.cancelled() and guest.times_inside == 0
        }
        assert refused <= {OverloadedError}
        await party.end()

    asyncio.run(play())
