"""A short soak; CI and `make chaos` run one of two minutes, `make soak` one of thirty."""

import os

import pytest

from benchmarks.soak import Soak, print_outcome, soak

SECONDS = float(os.environ.get("PDSERVE_SOAK_S", "15"))

pytestmark = [pytest.mark.model, pytest.mark.timeout(300 + 2 * SECONDS)]


async def test_nothing_is_lost_and_nothing_grows() -> None:
    outcome = await soak(Soak(SECONDS))
    print_outcome(outcome)
    assert outcome.problems == []
    assert outcome.account.outcomes["finished"] > outcome.account.sent / 2
    assert outcome.account.outcomes["cancelled"]
    assert outcome.harm
