"""Whose turn it is among requests that wait: fair between clients, by class within one."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pdserve.rpc.v1.types_pb2 import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NORMAL
from services.router.admission.fair_queue import HEAD_START_S, FairQueue, Ticket

CLASSES = (PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_HIGH)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ticket(client: str = "a", tokens: int = 1, weight: float = 1.0, priority=PRIORITY_NORMAL):
    return Ticket(client, weight, priority, tokens)


def order(queue: FairQueue) -> list[str]:
    return [queue.pop().ticket.client for _ in range(len(queue))]


def test_first_come_first_served_within_a_class_and_higher_classes_first() -> None:
    queue = FairQueue(Clock())
    names = {queue.push(ticket(priority=each)): each for each in (*CLASSES, *CLASSES)}
    served = [queue.pop() for _ in names]
    assert [names[entry] for entry in served] == sorted(names.values(), reverse=True)
    assert all(
        first.place < second.place
        for first, second in pairwise(served)
        if names[first] == names[second]
    )


def test_a_class_is_a_head_start_and_no_more() -> None:
    clock = Clock()
    queue = FairQueue(clock)
    low = queue.push(ticket(priority=PRIORITY_LOW))
    clock.now += HEAD_START_S[PRIORITY_HIGH] - HEAD_START_S[PRIORITY_LOW] - 0.1
    early = queue.push(ticket(priority=PRIORITY_HIGH))
    clock.now += 0.2
    for _ in range(10):
        queue.push(ticket(priority=PRIORITY_HIGH))
    assert [queue.pop() for _ in range(2)] == [early, low]


# Per client: its weight, and the prompts of its requests.
clients = st.lists(
    st.tuples(st.floats(0.1, 10), st.lists(st.integers(1, 1000), min_size=1, max_size=30)),
    min_size=2,
    max_size=5,
)


@given(clients, st.integers(1, 4), st.data())
def test_clients_that_wait_are_served_by_weight_to_within_what_may_run(
    backlog, slots: int, data
) -> None:
    """The bound of the paper's theorem 4.4, with what each client really can have running."""
    queue = FairQueue(Clock())
    left = Counter()
    for name, (weight, prompts) in enumerate(backlog):
        for tokens in prompts:
            queue.push(ticket(str(name), tokens, weight))
            left[str(name)] += 1
    weights = {str(name): weight for name, (weight, _) in enumerate(backlog)}
    most_output = 200
    slack = {
        str(name): (max(prompts) + slots * most_output) / weight
        for name, (weight, prompts) in enumerate(backlog)
    }
    served = Counter()
    running = []
    while all(left[name] for name in weights):
        if len(running) == slots:
            running.pop(data.draw(st.integers(0, slots - 1)))
        entry = queue.pop()
        name = entry.ticket.client
        left[name] -= 1
        served[name] += entry.ticket.tokens
        running.append([entry, most_output])
        for each in running:
            produced = data.draw(st.integers(0, each[1]))
            each[1] -= produced
            queue.charge(each[0], produced)
            served[each[0].ticket.client] += produced
        share = {each: served[each] / weights[each] for each in weights}
        for one in weights:
            for other in weights:
                assert share[one] - share[other] <= slack[one] + slack[other] + 1e-6


def test_equal_clients_take_turns_however_many_requests_one_of_them_has() -> None:
    queue = FairQueue(Clock())
    for _ in range(100):
        queue.push(ticket("flood", 10))
    for _ in range(3):
        queue.push(ticket("calm", 10))
    assert order(queue)[:6].count("calm") == 3


def test_who_pauses_saves_up_no_turns() -> None:
    queue = FairQueue(Clock())
    queue.push(ticket("away", 1))
    assert order(queue) == ["away"]
    for _ in range(50):
        queue.push(ticket("busy", 100))
        queue.pop()
    for _ in range(10):
        queue.push(ticket("away", 100))
        queue.push(ticket("busy", 100))
    assert order(queue)[:10].count("away") in (5, 6)


def test_one_request_too_many_is_the_last_of_who_has_most_for_its_weight() -> None:
    queue = FairQueue(Clock())
    for _ in range(4):
        queue.push(ticket("heavy", weight=4.0))
    queue.push(ticket("light", priority=PRIORITY_HIGH))
    least = queue.push(ticket("light", priority=PRIORITY_LOW))
    queue.push(ticket("light", priority=PRIORITY_HIGH))
    assert queue.least_entitled() is least


def test_of_equals_the_one_that_was_served_more_gives_way() -> None:
    queue = FairQueue(Clock())
    queue.push(ticket("served", 10))
    queue.pop()
    queue.push(ticket("new"))
    waits = queue.push(ticket("served"))
    assert queue.least_entitled() is waits


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(CLASSES)), max_size=30), st.data()
)
def test_whatever_leaves_the_queue_leaves_nothing_in_it(requests, data) -> None:
    queue = FairQueue(Clock())
    entries = [queue.push(ticket(client, priority=priority)) for client, priority in requests]
    while entries:
        assert len(queue) == len(queue.entries()) == len(entries)
        assert set(queue.entries()) == set(entries)
        for priority in CLASSES:
            waiting = sum(entry.ticket.priority == priority for entry in entries)
            assert queue.waiting(priority) == waiting
        if data.draw(st.booleans()):
            entries.remove(queue.pop())
        else:
            queue.remove(entries.pop(data.draw(st.integers(0, len(entries) - 1))))
    assert len(queue) == 0
    assert queue.entries() == []
