"""How many of what: against all combinations, tried one by one."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.planner.assembly import Limits, Option, least_cost, most_goodput


def option(phase: str, rate: float, kind: str, gpus: int, price: float = 0.0) -> Option:
    return Option({phase: rate}, {kind: gpus}, {kind: float(gpus)}, price)


def reached(options: list[Option], counts: tuple[int, ...]) -> float:
    phases = {phase for each in options for phase in each.rates}
    return min(
        sum(each.rates.get(phase, 0.0) * count for each, count in zip(options, counts, strict=True))
        for phase in phases
    )


def taken(options: list[Option], counts: tuple[int, ...], kind: str) -> int:
    return sum(each.gpus.get(kind, 0) * count for each, count in zip(options, counts, strict=True))


OPTIONS = st.lists(
    st.tuples(
        st.sampled_from(["prefill", "decode"]),
        st.floats(0.5, 8.0),
        st.sampled_from(["a", "b"]),
        st.sampled_from([1, 2, 4]),
    ).map(lambda each: option(*each)),
    min_size=2,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, a=st.integers(0, 6), b=st.integers(0, 6))
def test_no_other_counts_reach_a_higher_rate(options: list[Option], a: int, b: int) -> None:
    if len({phase for each in options for phase in each.rates}) < 2:
        return
    limits = Limits({"a": a, "b": b}, a + b)
    rate, counts = most_goodput(options, limits)
    possible = [
        each
        for each in product(range(7), repeat=len(options))
        if taken(options, each, "a") <= a and taken(options, each, "b") <= b
    ]
    best = max(reached(options, each) for each in possible)
    assert rate == pytest.approx(best, rel=1e-3, abs=1e-6)
    if counts:
        assert reached(options, tuple(counts)) >= rate * (1 - 1e-6)


def test_one_kind_and_one_shape_a_phase_is_distserves_rounding_up() -> None:
    options = [option("prefill", 3.0, "a", 2), option("decode", 5.0, "a", 1)]
    assert least_cost(options, Limits({"a": 99}, 99), 20.0) == [7, 4]


def test_each_kind_does_what_it_is_better_at() -> None:
    options = [
        option("prefill", 4.0, "fast", 1),
        option("decode", 4.0, "fast", 1),
        option("prefill", 1.0, "slow", 1),
        option("decode", 3.0, "slow", 1),
    ]
    _, counts = most_goodput(options, Limits({"fast": 6, "slow": 8}, 14))
    assert counts == [6, 0, 0, 8]


def test_where_prices_are_known_the_cheaper_plan_wins_not_the_smaller() -> None:
    options = [
        option("prefill", 1.0, "cheap", 1, price=1.0),
        option("prefill", 3.0, "dear", 1, price=5.0),
        option("decode", 3.0, "cheap", 1, price=1.0),
    ]
    assert least_cost(options, Limits({"cheap": 9, "dear": 9}, 18), 3.0) == [3, 0, 1]


def test_what_cannot_be_reached_has_no_counts() -> None:
    options = [option("prefill", 1.0, "a", 1), option("decode", 1.0, "a", 1)]
    assert least_cost(options, Limits({"a": 4}, 4), 3.0) == []
    assert most_goodput(options, Limits({"a": 1}, 1)) == (0.0, [])
    assert most_goodput([], Limits({"a": 1}, 1)) == (0.0, [])


def test_room_that_a_unit_leaves_to_nobody_counts() -> None:
    unit = Option({"both": 1.0}, {"a": 6}, {"a": 8.0}, 0.0, instances=2)
    assert most_goodput([unit], Limits({"a": 16}, 16))[1] == [2]
