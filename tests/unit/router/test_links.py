"""What the router knows of the way between two instances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.cluster.instance import Role
from pdserve.cluster.topology import Distance, Topology
from services.router.links import Links

PRIORS = {distance: 10.0**9 / 10**place for place, distance in enumerate(Distance)}
HALF_LIFE_S = 60.0
HERE = Topology(node="n", rack="r", zone="z")


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def links_of(places) -> tuple[Links, Clock]:
    """Links from the prefill instance "p" to decode instances at these places: "d0", "d1", …"""
    clock = Clock()
    links = Links(PRIORS, HALF_LIFE_S, clock)
    links.join(Role.PREFILL, "p", HERE)
    for number, place in enumerate(places):
        links.join(Role.DECODE, f"d{number}", place)
    return links, clock


def speeds(links: Links, prefill: str = "p") -> list[float]:
    rows = np.array([links.prefills[prefill]])
    columns = np.array([slot for _, slot in links.decodes.items()])
    return [round(float(each)) for each in links.estimates(rows, columns).bytes_per_s[0]]


def test_until_it_is_measured_a_link_is_as_fast_as_its_distance_lets_expect() -> None:
    places = [HERE, Topology("m", "", "r", "z"), Topology("m", "", "s", "z"), Topology("m")]
    assert speeds(links_of(places)[0]) == [1e9, 1e7, 1e6, 1e5]
    assert Topology("m", "c").distance(Topology("n", "c")) is Distance.CLIQUE
    assert Topology().distance(Topology()) is Distance.FAR


def test_a_few_transfers_overrule_the_expectation() -> None:
    links, _ = links_of([HERE, HERE])
    for _ in range(5):
        links.observe("p", "d0", 4 << 20, 0.4)
    slow, other = speeds(links)
    assert slow == pytest.approx(10.5e6, rel=0.1)
    assert other == 1e9


def test_what_was_measured_is_forgotten() -> None:
    links, clock = links_of([HERE])
    links.observe("p", "d0", 1 << 20, 1.0)
    clock.now += HALF_LIFE_S
    assert speeds(links)[0] == pytest.approx(1.5 * (1 << 20) / (0.5 + (1 << 20) / 1e9))
    clock.now += 60 * HALF_LIFE_S
    assert speeds(links)[0] == pytest.approx(1e9)


def test_newer_transfers_count_more() -> None:
    links, clock = links_of([HERE])
    links.observe("p", "d0", 1 << 30, 100.0)
    clock.now += 5 * HALF_LIFE_S
    links.observe("p", "d0", 1 << 30, 1.0)
    assert speeds(links)[0] == pytest.approx((1 << 30) * (1 + 2**-5) / (1 + 100 * 2**-5), rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 1 << 40), st.floats(1e-6, 1e4)), max_size=20))
def test_an_estimate_lies_between_the_expectation_and_what_was_seen(transfers) -> None:
    links, _ = links_of([HERE])
    for size, seconds in transfers:
        links.observe("p", "d0", size, seconds)
    seen = [1e9, *(size / seconds for size, seconds in transfers)]
    assert min(seen) * 0.999 <= speeds(links)[0] <= max(seen) * 1.001


def test_bytes_are_under_way_as_long_as_they_are() -> None:
    links, _ = links_of([HERE])
    only = np.array([0])
    with links.in_flight("p", "d0", 100), links.in_flight("p", "d0", 50):
        assert links.estimates(only, only).in_flight_bytes[0, 0] == 150
    assert links.estimates(only, only).in_flight_bytes[0, 0] == 0


def test_an_instance_that_comes_later_knows_nothing_of_its_slots_last_holder() -> None:
    links, _ = links_of([HERE])
    links.observe("p", "d0", 1 << 30, 100.0)
    with links.in_flight("p", "d0", 100):
        links.leave(Role.DECODE, "d0")
        links.observe("p", "d0", 1 << 30, 100.0)
        links.join(Role.DECODE, "d1", HERE)
        assert links.decodes["d1"] == 0
        assert speeds(links) == [1e9]
    only = np.array([0])
    assert links.estimates(only, only).in_flight_bytes[0, 0] == 0
    assert links.states(9) == []


def test_any_number_of_instances_has_room() -> None:
    links, _ = links_of([HERE])
    links.observe("p", "d0", 1 << 30, 100.0)
    before = speeds(links)
    for number in range(100):
        links.join(Role.PREFILL, f"q{number}", HERE)
        links.join(Role.DECODE, f"e{number}", Topology("m"))
    assert speeds(links) == [*before, *[1e5] * 100]
    assert speeds(links, "q99")[0] == 1e9


def test_idle_pairs_are_those_never_used_then_those_used_long_ago() -> None:
    links, clock = links_of([Topology("m"), HERE, HERE, HERE])
    links.observe("p", "d2", 1, 1.0)
    clock.now += 100
    links.observe("p", "d3", 1, 1.0)
    assert links.idle_pairs(50) == [("p", "d1"), ("p", "d0"), ("p", "d2")]
    assert links.idle_pairs(500) == [("p", "d1"), ("p", "d0")]
    assert links.idle_pairs(50, limit=1) == [("p", "d1")]
    assert Links(PRIORS, HALF_LIFE_S).idle_pairs(0) == []


def test_states_tell_of_pairs_that_were_measured() -> None:
    links, clock = links_of([HERE, Topology("m")])
    links.observe("p", "d1", 1 << 30, 10.0)
    links.observe("p", "d1", 0, 0.0)  # nothing had to move: nothing was measured
    clock.now += 2
    (state,) = links.states(9)
    assert (state.prefill, state.decode, state.distance) == ("p", "d1", Distance.FAR)
    assert (state.transfers, state.age_s) == (1, 2)
    assert state.bytes_per_s == pytest.approx((1 << 30) / 10, rel=0.7)
