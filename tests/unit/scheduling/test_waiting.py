"""Who goes first: by deadline among equals, by class among contemporaries, and nobody starves."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.scheduling.urgency import ORDINARY, Priority, Urgency
from pdserve.scheduling.waiting import HORIZON_S, NOWHERE, OVERTAKEN_S, Place, WaitingQueue


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@dataclass(eq=False)
class Job:
    name: str
    urgency: Urgency = ORDINARY
    arrived_s: float = 0.0
    place: Place = field(default=NOWHERE)


class Line:
    """A queue on a clock of its own."""

    def __init__(self):
        self.clock = Clock()
        self.queue = WaitingQueue(self.clock)

    def arrive(self, name, due_in_s=None, priority=Priority.NORMAL):
        due_s = None if due_in_s is None else self.clock.now + due_in_s
        job = Job(name, Urgency(priority, due_s), self.clock.now)
        self.queue.arrive(job)
        return job

    def next(self):
        head = self.queue.head()
        assert self.queue.pop() is head
        return head

    def rest(self):
        return [self.next().name for _ in range(len(self.queue))]


@pytest.fixture
def line():
    return Line()


def test_equals_without_objectives_are_served_in_the_order_of_arrival(line):
    for name in "abc":
        line.arrive(name)
    line.clock.now += 3
    line.arrive("d")
    assert line.rest() == ["a", "b", "c", "d"]


def test_the_earliest_deadline_goes_first(line):
    line.arrive("late", due_in_s=5)
    line.arrive("soon", due_in_s=1)
    line.clock.now += 0.5
    line.arrive("sooner", due_in_s=0.2)
    assert line.rest() == ["sooner", "soon", "late"]


def test_what_has_no_objective_is_due_within_the_horizon_like_what_has_a_distant_one(line):
    line.arrive("none")
    line.arrive("distant", due_in_s=100 * HORIZON_S)
    line.arrive("near", due_in_s=HORIZON_S / 2)
    assert line.rest() == ["near", "none", "distant"]


def test_of_what_arrives_together_the_higher_class_goes_first_whatever_the_deadlines(line):
    line.arrive("low", due_in_s=0.1, priority=Priority.LOW)
    line.arrive("normal", due_in_s=0.2)
    line.arrive("high", priority=Priority.HIGH)
    assert line.rest() == ["high", "normal", "low"]


def test_a_class_is_a_head_start_and_no_right(line):
    line.arrive("low", priority=Priority.LOW)
    line.clock.now += 1.01 * HORIZON_S
    line.arrive("normal")
    line.clock.now += 1.01 * HORIZON_S
    line.arrive("high", priority=Priority.HIGH)
    assert line.rest() == ["low", "normal", "high"]


def test_what_is_late_makes_room_for_what_can_still_be_in_time(line):
    line.arrive("late", due_in_s=1)
    line.clock.now += 2
    line.arrive("in time", due_in_s=1)
    assert line.rest() == ["in time", "late"]


def test_what_is_late_already_when_it_arrives_is_not_served_first(line):
    line.arrive("late", due_in_s=-50)
    line.arrive("in time", due_in_s=1)
    line.arrive("without")
    assert line.rest() == ["in time", "late", "without"]


def test_what_is_late_is_moved_back_once(line):
    late = line.arrive("late", due_in_s=1)
    first = late.place
    for _ in range(3):
        line.clock.now += 2
        line.queue.head()
    assert late.place.virtual_deadline_s == first.virtual_deadline_s + HORIZON_S


def test_without_an_objective_nothing_is_ever_late(line):
    job = line.arrive("a")
    place = job.place
    line.clock.now += 100 * HORIZON_S
    assert line.queue.head() is job
    assert job.place == place


def test_what_had_its_turn_in_time_keeps_its_place_when_it_comes_back(line):
    job = line.arrive("preempted", due_in_s=1)
    assert line.next() is job
    line.clock.now += 5
    line.arrive("new", due_in_s=0.5)
    line.queue.put_back(job)
    assert line.rest() == ["preempted", "new"]


def test_a_request_can_be_taken_out_wherever_it_stands(line):
    jobs = [line.arrive(str(number), due_in_s=number % 3) for number in range(9)]
    line.queue.remove(jobs[4])
    assert sorted(line.rest()) == [str(number) for number in range(9) if number != 4]


def met_in_time(requests, service_s, *, tell_deadlines):
    """How many of (arrival, time until it is due) are done in time by one server."""
    line, begin, met = Line(), Clock().now, 0
    coming = sorted(requests, reverse=True)
    while coming or len(line.queue):
        if not len(line.queue):
            line.clock.now = max(line.clock.now, begin + coming[-1][0])
        while coming and begin + coming[-1][0] <= line.clock.now:
            arrival_s, due_in_s = coming.pop()
            line.arrive(begin + arrival_s + due_in_s, due_in_s if tell_deadlines else None)
        due_s = line.next().name
        line.clock.now += service_s
        met += line.clock.now <= due_s
    return met


def test_a_burst_does_not_make_everything_after_it_late():
    """With equal objectives plain earliest deadline first is the order of arrival."""
    requests = [(0.0, 1.0)] * 40 + [(0.125 * number, 1.0) for number in range(60)]
    plain = met_in_time(requests, 0.1, tell_deadlines=False)
    assert met_in_time(requests, 0.1, tell_deadlines=True) > 3 * plain


def ticks(seconds):
    """Times up to `seconds` whose sums and differences are exact."""
    return st.integers(0, int(1024 * seconds)).map(lambda number: number / 1024)


URGENCY = st.tuples(st.sampled_from(Priority), st.none() | st.floats(-20, 1e6))
# A request arrives (its class and when it is due), or the head is served; time passes before.
EVENTS = st.lists(st.tuples(st.floats(0, 15), st.none() | URGENCY), max_size=60)


@settings(max_examples=200)
@given(EVENTS)
def test_nothing_is_overtaken_by_what_arrives_much_later(events):
    line, waiting = Line(), set()
    for pause, urgency in events:
        line.clock.now += pause
        if urgency is not None:
            priority, due_in_s = urgency
            waiting.add(line.arrive("", due_in_s, priority))
        elif waiting:
            served = line.next()
            waiting.remove(served)
            assert all(served.arrived_s <= other.arrived_s + OVERTAKEN_S for other in waiting)
    while waiting:
        waiting.remove(line.next())


@settings(max_examples=200)
@given(st.lists(st.tuples(ticks(5), ticks(HORIZON_S)), max_size=30))
def test_equals_that_can_be_in_time_are_served_by_deadline(arrivals):
    line = Line()
    jobs = []
    for pause, due_in_s in arrivals:
        line.clock.now += pause
        jobs.append(line.arrive("", due_in_s))
    now = line.clock.now
    order = [line.next() for _ in jobs]
    in_time = [job.urgency.due_s for job in order if job.urgency.due_s > now]
    assert in_time == sorted(in_time)


@given(st.lists(st.floats(0, 100), max_size=30), st.sampled_from(Priority))
def test_without_objectives_a_class_is_served_in_the_order_of_arrival(pauses, priority):
    line = Line()
    for number, pause in enumerate(pauses):
        line.clock.now += pause
        line.arrive(number, priority=priority)
    assert line.rest() == list(range(len(pauses)))


@given(URGENCY, st.floats(0, 1e9))
def test_a_virtual_deadline_is_never_far_from_the_arrival(urgency, now_s):
    priority, due_in_s = urgency
    due_s = None if due_in_s is None else now_s + due_in_s
    place = Place.of(Urgency(priority, due_s), now_s, 1)
    assert math.isfinite(place.virtual_deadline_s)
    rounding_s = 1e-12 * (1 + now_s)
    earliest_s, latest_s = now_s - HORIZON_S, now_s + 2 * HORIZON_S
    assert earliest_s - rounding_s <= place.virtual_deadline_s <= latest_s + rounding_s
