"""API keys at both doors."""

import logging
from pathlib import Path

import grpc
import openai
import pytest
from grpc import aio
from http_client import HELLO, http_bench
from prometheus_client import CollectorRegistry
from router_bench import Members, tiny_model

from pdserve import followed_file
from pdserve.api_keys import bearer
from pdserve.config import RouterConfig
from pdserve.errors import ConfigError, UnauthenticatedError
from pdserve.rpc.errors import from_rpc_error
from pdserve.rpc.v1 import router_pb2
from services.router.router import Router

SECRET = "a-very-secret-key"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"alice: {SECRET}\n")
    return path


async def test_http_needs_a_key_for_the_api_and_for_nothing_else(keys: Path) -> None:
    async with http_bench(api_keys=str(keys)) as (it, client):
        body = b'{"prompt": "x", "max_tokens": 2}'
        for shown in ({}, {"authorization": "Bearer nonsense"}, {"authorization": SECRET}):
            for method, path in (
                ("POST", "/v1/completions"),
                ("POST", "/v1/chat/completions"),
                ("GET", "/v1/models"),
                ("GET", "/v1/models/tiny"),
                ("GET", "/v1/nothing"),
            ):
                reply = await client.send(method, path, body, **shown)
                assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
                assert reply.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/health", "/ready", "/metrics"):
            assert (await client.get(path)).status == 200
        assert all(fake.requests == [] for fake in it.instances)
        reply = await client.send("POST", "/v1/completions", body, authorization=f"Bearer {SECRET}")
        assert reply.status == 200


async def test_grpc_needs_a_key_as_metadata(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with http_bench(api_keys=str(keys)) as (it, _):

        async def all_calls(metadata: tuple[tuple[str, str], ...]) -> None:
            await it.stub.ListModels(router_pb2.ListModelsRequest(), timeout=5, metadata=metadata)
            await it.stub.GetCluster(router_pb2.GetClusterRequest(), timeout=5, metadata=metadata)
            request = router_pb2.GenerateRequest(prompt="x")
            async for _ in it.stub.Generate(request, timeout=5, metadata=metadata):
                pass

        for metadata in ((), bearer("nonsense"), (("authorization", SECRET),)):
            with pytest.raises(aio.AioRpcError) as raised:
                await all_calls(metadata)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert isinstance(from_rpc_error(raised.value), UnauthenticatedError)
        with pytest.raises(aio.AioRpcError) as raised:
            await it.generate()
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with caplog.at_level(logging.INFO):
            await all_calls(bearer(SECRET))
        (finished,) = (each for each in caplog.records if each.msg == "request finished")
        assert finished.client == "alice"
        assert SECRET not in caplog.text


async def test_openais_client_shows_its_key(keys: Path) -> None:
    async with http_bench(api_keys=str(keys)) as (it, _):
        for key in (SECRET, "nonsense"):
            async with openai.AsyncOpenAI(
                base_url=f"{it.url}/v1", api_key=key, max_retries=0
            ) as client:
                asked = client.chat.completions.create(model="tiny", messages=HELLO)
                if key == SECRET:
                    assert (await asked).choices
                else:
                    with pytest.raises(openai.AuthenticationError):
                        await asked


async def test_a_key_that_is_taken_away_ends_to_work(keys: Path, monkeypatch) -> None:
    monkeypatch.setattr(followed_file, "_POLL_S", 0.01)
    async with http_bench(api_keys=str(keys)) as (_, client):
        shown = {"authorization": f"Bearer {SECRET}"}
        assert (await client.get("/v1/models", **shown)).status == 200
        keys.write_text("bob: another-secret\n")  # noqa: ASYNC240 - one line
        while (await client.get("/v1/models", **shown)).status == 200:
            pass
        assert (await client.get("/v1/models", authorization="Bearer another-secret")).status == 200


async def test_a_router_does_not_start_without_its_keys(tmp_path: Path) -> None:
    config = RouterConfig(api_keys=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="No such file"):
        Router(config, tiny_model(), Members([]), CollectorRegistry())
