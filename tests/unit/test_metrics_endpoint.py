import urllib.request

import pytest
from prometheus_client import Counter

from pdserve.errors import ConfigError
from pdserve.metrics import BYTES_BUCKETS, SECONDS_BUCKETS, MetricsEndpoint


def test_each_endpoint_serves_its_own_registry_until_it_is_closed() -> None:
    with MetricsEndpoint("127.0.0.1", 0) as one, MetricsEndpoint("127.0.0.1", 0) as other:
        Counter("pdserve_test_things", "Things", registry=one.registry).inc(3)
        assert "pdserve_test_things_total 3.0" in read(one.url)
        assert "pdserve_test_things_total" not in read(other.url)
        assert str(one.port) in one.url
    with pytest.raises(OSError, match="refused"):
        read(one.url)


def test_a_port_that_is_taken_is_named() -> None:
    with MetricsEndpoint("127.0.0.1", 0) as one:
        with pytest.raises(ConfigError, match=f"metrics_port {one.port} .* in use") as raised:
            MetricsEndpoint("127.0.0.1", one.port)
        assert raised.value.field == "metrics_port"


@pytest.mark.parametrize("buckets", [SECONDS_BUCKETS, BYTES_BUCKETS])
def test_buckets_rise(buckets: tuple[float, ...]) -> None:
    assert list(buckets) == sorted(set(buckets))


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read().decode()
