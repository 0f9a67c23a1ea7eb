"""A router in a pod: the API server and the credentials are those that Kubernetes gives it."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from kubernetes.aio.config import incluster_config

from pdserve.cluster import kubernetes_api
from pdserve.cluster.source import make_discovery
from tests.unit.cluster.pods import members_of, pod


class SecureServer:
    """Answers lists of pods in namespace `llm` to whoever shows `token`; watches it has none."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.refused = 0

    async def pods(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").lower() != f"bearer {self.token}":
            self.refused += 1
            return web.json_response({"message": "Unauthorized"}, status=401)
        if "watch" in request.query:
            return web.Response()
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [pod("one")]})


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureServer]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("first")
    (tmp_path / "namespace").write_text("llm")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = SecureServer("first")
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/llm/pods", server.pods)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(runner.addresses[0][1]))
    monkeypatch.setattr(kubernetes_api, "_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    yield server
    await runner.cleanup()


async def test_a_service_account_is_what_it_takes(server: SecureServer) -> None:
    async with members_of(make_discovery("kube:", "rack")) as members:
        await members.until(lambda: members.names == ["one"])
        assert server.refused == 0


async def test_a_token_that_is_rotated_is_taken_over(server: SecureServer, tmp_path: Path) -> None:
    async with members_of(make_discovery("kube:", "rack")) as members:
        await members.until(lambda: members.names == ["one"])
        server.token = "second"
        await members.until(lambda: "status 401" in members.discovery.problem)
        # While the file is replaced there may be none, or an empty one.
        (tmp_path / "token").write_text("")
        await members.until(lambda: "Token file exists but empty" in members.discovery.problem)
        (tmp_path / "token").write_text("second")
        await members.until(lambda: members.discovery.problem == "")
        assert [each[0].name for each in members.seen] == ["one"]
