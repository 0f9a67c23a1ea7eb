import asyncio
import urllib.error
import urllib.request

import pytest
from prometheus_client import Counter

from pdserve.errors import ConfigError
from pdserve.metrics import BYTES_BUCKETS, SECONDS_BUCKETS, MetricsEndpoint, read_in_loop


def test_each_endpoint_serves_its_own_registry_until_it_is_closed() -> None:
    with MetricsEndpoint("127.0.0.1", 0) as one, MetricsEndpoint("127.0.0.1", 0) as other:
        Counter("pdserve_test_things", "Things", registry=one.registry).inc(3)
        assert "pdserve_test_things_total 3.0" in read(one.url)
        assert "pdserve_test_things_total" not in read(other.url)
        assert str(one.port) in one.url
    with pytest.raises(OSError, match="refused"):
        read(one.url)


def test_health_is_what_the_process_says_of_itself() -> None:
    with MetricsEndpoint("127.0.0.1", 0) as endpoint:
        assert health(endpoint) == (503, "not serving\n")
        endpoint.healthy = lambda: True
        assert health(endpoint) == (200, "serving\n")
        endpoint.healthy = lambda: False
        assert health(endpoint) == (503, "not serving\n")


async def test_a_process_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdserve.metrics.SCRAPE_TIMEOUT_S", 0.05)
    with MetricsEndpoint("127.0.0.1", 0) as endpoint:
        endpoint.healthy = read_in_loop(lambda: True)
        assert await asyncio.to_thread(health, endpoint) == (200, "serving\n")
        # Here nothing runs the event loop while the answer is waited for.
        assert health(endpoint) == (503, "not serving\n")


def test_a_port_that_is_taken_is_named() -> None:
    with MetricsEndpoint("127.0.0.1", 0) as one:
        with pytest.raises(ConfigError, match=f"metrics_port {one.port} .* in use") as raised:
            MetricsEndpoint("127.0.0.1", one.port)
        assert raised.value.field == "metrics_port"


@pytest.mark.parametrize("buckets", [SECONDS_BUCKETS, BYTES_BUCKETS])
def test_buckets_rise(buckets: tuple[float, ...]) -> None:
    assert list(buckets) == sorted(set(buckets))


def health(endpoint: MetricsEndpoint) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(
            endpoint.url.replace("/metrics", "/health"), timeout=5
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read().decode()
