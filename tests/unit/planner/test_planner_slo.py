"""Bounds are checked where they are stated, and scale together."""

import math

import pytest

from pdserve.errors import ConfigError
from pdserve.planner.slo import Slo


def test_without_bounds_everything_attains():
    assert Slo().ttft_s == Slo().tpot_s == math.inf


def test_both_bounds_scale_and_the_share_stays():
    assert Slo(0.4, 0.1, 0.95).scaled(0.5) == Slo(0.2, 0.05, 0.95)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("name", ["ttft", "tpot"])
def test_a_bound_that_nothing_meets_is_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is .* ms; it must be above 0") as caught:
        Slo(**{f"{name}_s": value})
    assert caught.value.field == f"{name}_ms"


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, 90, math.nan])
def test_a_share_outside_its_range_is_named(share):
    with pytest.raises(ConfigError, match=r"attainment is .*\(0, 1\]") as caught:
        Slo(attainment=share)
    assert caught.value.field == "attainment"
