"""The search for the highest rate that still meets the target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.bench.knee import Sweep, find_knee
from pdserve.errors import ConfigError


@given(st.floats(0.5, 200))
async def test_the_knee_is_found_within_the_tolerance(limit: float) -> None:
    tried = []

    async def meets(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    knee = await find_knee(Sweep(1, 100, 0.05), meets)
    assert min(tried) >= 1
    assert max(tried) <= 100
    if limit < 1:
        assert knee == 0
    elif limit >= 100:
        assert knee == 100
    else:
        assert knee <= limit <= knee * 1.05
    assert len(tried) < 20


async def test_rates_double_first_and_end_at_the_highest() -> None:
    tried = []

    async def meets(rate: float) -> bool:
        tried.append(rate)
        return True

    assert await find_knee(Sweep(1, 6), meets) == 6
    assert tried == [1, 2, 4, 6]


@pytest.mark.parametrize("stop_at", [1, 3, 5])
async def test_a_search_that_is_stopped_returns_what_it_has(stop_at: int) -> None:
    tried = []

    async def meets(rate: float) -> bool | None:
        tried.append(rate)
        return None if len(tried) == stop_at else rate < 5

    good = [rate for rate in (1, 2, 4, (4 * 8) ** 0.5) if rate < 5]
    knee = await find_knee(Sweep(1, 64, 0.01), meets)
    assert len(tried) == stop_at
    assert knee == max([each for each in tried[:-1] if each in good], default=0)


@pytest.mark.parametrize("sweep", [(0, 1), (2, 1), (1, 1), (1, float("inf")), (1, 2, 0), (1, 2, 2)])
def test_bad_sweeps_are_named(sweep: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"sweep is|tolerance is"):
        Sweep(*sweep)
