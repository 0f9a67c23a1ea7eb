"""Models, health, readiness and metrics over HTTP, and where the server listens."""

from unittest.mock import MagicMock

import pytest
from http_client import http_bench
from prometheus_client import CollectorRegistry
from router_bench import bench, tiny_model

from pdserve.config import RouterConfig
from pdserve.errors import ConfigError
from services.router.http.server import HttpServer


async def test_models_are_listed_and_found_by_any_name() -> None:
    async with http_bench() as (_, client):
        (model,) = (await client.get("/v1/models")).body["data"]
        assert (model["id"], model["object"], model["owned_by"]) == ("tiny", "model", "pdserve")
        assert model["max_model_len"] == 200
        for name in ("tiny", "path/to/tiny", "path%2Fto%2Ftiny"):
            assert (await client.get(f"/v1/models/{name}")).body == model
        reply = await client.get("/v1/models/huge")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")


async def test_ready_follows_whether_a_placement_is_possible_and_health_does_not() -> None:
    async with http_bench() as (it, client):
        assert (await client.get("/ready")).status == 200
        await it.decode[0].kill()
        await it.until_state(it.decode[0], "down")
        assert (await client.get("/ready")).status == 503
        assert (await client.get("/health")).status == 200
        await it.decode[0].start()
        await it.until_state(it.decode[0], "up")
        assert (await client.get("/ready")).status == 200


async def test_metrics_count_requests_of_either_api() -> None:
    async with http_bench() as (it, client):
        await client.complete()
        await it.generate()
        await it.until_quiet()
        text = (await client.get("/metrics")).text
        assert 'pdserve_router_requests_total{outcome="stop"} 2.0' in text


async def test_the_http_api_can_be_left_out() -> None:
    async with bench(http=False) as it:
        assert it.router.http is None
        assert (await it.generate()).text


async def test_a_port_that_is_taken_is_named() -> None:
    async with bench() as it:
        config = RouterConfig(http_port=it.router.http.port)
        with pytest.raises(ConfigError, match="in use") as raised:
            HttpServer(config, tiny_model(), MagicMock(), None, CollectorRegistry())
        assert raised.value.field == "http_port"


@pytest.mark.parametrize(("name", "value"), [("http_port", -1), ("max_body_bytes", 0)])
def test_options_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError) as raised:
        RouterConfig(**{name: value})
    assert raised.value.field == name
