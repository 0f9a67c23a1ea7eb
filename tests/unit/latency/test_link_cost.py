"""Transfers over a link, alone and shared."""

import pytest

from pdserve.errors import ConfigError
from pdserve.latency.link import LinkCost


def test_a_transfer_takes_latency_and_bytes_over_bandwidth():
    assert LinkCost(1e-3, 1e9).transfer_s(5e8) == pytest.approx(0.501)


def test_concurrent_transfers_share_the_bandwidth_and_not_the_latency():
    assert LinkCost(1e-3, 1e9).transfer_s(5e8, concurrent=4) == pytest.approx(2.001)


@pytest.mark.parametrize(
    ("latency", "rate", "field"),
    [(-1.0, 1.0, "latency_s"), (0.0, 0.0, "bytes_per_s"), (0.0, float("nan"), "bytes_per_s")],
)
def test_impossible_links_are_refused(latency, rate, field):
    with pytest.raises(ConfigError) as caught:
        LinkCost(latency, rate)
    assert caught.value.field == field


def test_a_transfer_shares_at_least_with_itself():
    with pytest.raises(ValueError, match="concurrent is 0"):
        LinkCost(0.0, 1.0).transfer_s(1, concurrent=0)
