import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.planner.goodput import Bisection

RATES = st.floats(1e-3, 1e4)


@given(limit=RATES, guess=RATES)
def test_the_limit_is_found_from_any_guess(limit: float, guess: float) -> None:
    found = Bisection(tolerance=0.02).highest(lambda rate: rate <= limit, guess)
    assert limit / 1.02 <= found <= limit


@given(guess=RATES)
def test_where_no_rate_meets_goodput_is_zero(guess: float) -> None:
    assert Bisection().highest(lambda rate: False, guess) == 0


def test_a_rate_without_limit_ends_the_search() -> None:
    assert Bisection().highest(lambda rate: True, 1.0) > 1e6


@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.01])
def test_a_finer_tolerance_costs_only_a_few_more_simulations(tolerance: float) -> None:
    asked: list[float] = []

    def meets(rate: float) -> bool:
        asked.append(rate)
        return rate <= 7.3

    Bisection(tolerance).highest(meets, 5.0)
    assert len(asked) <= 12
