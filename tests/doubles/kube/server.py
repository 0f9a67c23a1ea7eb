"""A Kubernetes API server for tests: real HTTP, no controllers.

What a cluster would do with the objects (start pods, fill EndpointSlices) the test does itself,
through `store` or through the API.
"""

import argparse
import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import trustme
from aiohttp import web

from tests.doubles.kube.access import Access, Faults
from tests.doubles.kube.api import Api
from tests.doubles.kube.credentials import Endpoint, write_kubeconfig, write_service_account
from tests.doubles.kube.discovery import discovery_document
from tests.doubles.kube.errors import ApiError, forbidden, not_served
from tests.doubles.kube.openapi import openapi_document
from tests.doubles.kube.paths import Target, target_of
from tests.doubles.kube.rbac import account_name, allowed
from tests.doubles.kube.requests import (
    APPLIED,
    body_of,
    object_of,
    shape_for,
    user_of,
    verb_of,
    write_of,
)
from tests.doubles.kube.resources import Resources
from tests.doubles.kube.store import Store

VERSION = "1.37.1"
# Larger than any release that helm stores.
BODY_BYTES = 16 << 20
HOST = "127.0.0.1"
ADMIN = "admin"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class KubeServer:
    """An API server on a free port of loopback while it is entered.

    `extensions` are the kinds of resources.EXTENSIONS that this cluster has, `version` is the one
    of Kubernetes that it claims to be, `history_limit` how many changes of each resource a watch
    can go back, `bookmark_interval_s` how often watches get bookmarks. A bearer token is taken for
    the name of the user; a service account (rbac.account_name) may do what the stored roles allow,
    everybody else everything. All methods belong into the event loop that entered it.
    """

    def __init__(
        self,
        extensions: Iterable[str] = (),
        *,
        version: str = VERSION,
        history_limit: int = 1000,
        bookmark_interval_s: float = 60.0,
        tls: bool = False,
    ) -> None:
        self.store = Store(Resources(extensions), history_limit)
        self.faults = Faults()
        self.access_log: list[Access] = []
        self.url = ""
        self._version = version
        self._api = Api(
            self.store, self.faults, version=version, bookmark_interval_s=bookmark_interval_s
        )
        self._authority = trustme.CA() if tls else None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "KubeServer":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listens on that port of loopback, or on any free one."""
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        context = self._tls_context()
        await web.TCPSite(self._runner, HOST, port, ssl_context=context).start()
        scheme = "https" if context else "http"
        self.url = f"{scheme}://{HOST}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends all watches and listens no more; the objects stay."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, path: Path, *, user: str = ADMIN, namespace: str = "default") -> Path:
        """Writes the configuration with which clients reach the server as that user.

        kubectl and helm say who they are only where the server has TLS.
        """
        return write_kubeconfig(self._endpoint(), path, user, namespace)

    def service_account(
        self, folder: Path, name: str, namespace: str = "default"
    ) -> dict[str, str]:
        """Writes what a pod of that service account finds; returns its environment.

        Needs TLS, which every client in a cluster insists on.
        """
        user = account_name(namespace, name)
        return write_service_account(self._endpoint(), folder, user, namespace)

    async def until_watched(self, count: int = 1) -> None:
        """Returns once exactly so many watches are open."""
        await self._api.watches.until(count)

    def drop_watches(self, *, reset: bool = False) -> None:
        """Ends every open watch now; with `reset` by resetting its connection."""
        for watch in self._api.watches:
            watch.drop(reset=reset)

    def send_bookmarks(self) -> None:
        """Sends a bookmark to every open watch that allows them."""
        for watch in self._api.watches:
            watch.bookmark()

    def expire_history(self) -> None:
        """Makes every version but the present one too old to watch or to list on from (410)."""
        self.store.forget_history()
        self._api.pages.forget()

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._authority is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(HOST).configure_cert(context)
        return context

    def _endpoint(self) -> Endpoint:
        return Endpoint(self.url, self._authority.cert_pem.bytes() if self._authority else b"")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.faults.delay_s:
            await asyncio.sleep(self.faults.delay_s)
        try:
            document = discovery_document(
                self.store.resources, request.path, self._version
            ) or openapi_document(self.store.resources, request.path)
            if document is not None:
                return web.json_response(document)
            if request.path == REVIEWS:
                return await self._review(request)
            return await self._serve(request)
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        target = target_of(self.store.resources, request.path)
        verb = verb_of(request, target)
        self._admit(request, target, verb)
        query = request.query
        match verb:
            case "watch":
                return await self._api.watch(request, target, query, shape_for(request))
            case "list":
                return web.json_response(shape_for(request)(self._api.list(target, query)))
            case "get":
                return web.json_response(shape_for(request)(self._api.get(target)))
            case "create":
                made = self._api.create(target, await object_of(request), write_of(request, target))
                return web.json_response(made, status=201)
            case "update":
                sent = await object_of(request)
                return web.json_response(self._api.update(target, sent, write_of(request, target)))
            case "patch":
                return await self._patch(request, target)
            case "delete":
                options = await object_of(request)
                return web.json_response(self._api.delete(target, query, options))
            case "deletecollection":
                options = await object_of(request)
                return web.json_response(self._api.delete_collection(target, query, options))
        raise not_served(f"{request.method} {request.path}")

    async def _patch(self, request: web.Request, target: Target) -> web.Response:
        kind, patch = await body_of(request)
        if kind != APPLIED:
            write = write_of(request, target)
            return web.json_response(self._api.patch(target, kind, patch, write))
        made, new = self._api.apply(target, patch, write_of(request, target, "Apply"))
        return web.json_response(made, status=201 if new else 200)

    def _admit(self, request: web.Request, target: Target, verb: str) -> None:
        resource = target.resource
        plural = f"{resource.plural}/{target.subresource}".rstrip("/")
        access = Access(
            user_of(request), verb, resource.group, plural, target.namespace, target.name
        )
        self.access_log.append(access)
        refused = any(rule.covers(access) for rule in self.faults.refused)
        if refused or not allowed(self.store, access):
            raise forbidden(access.user, verb, plural, resource.group, target.namespace)
        if any(rule.covers(access) for rule in self.faults.failing):
            raise ApiError(500, "InternalError", "the server fails on purpose")

    async def _review(self, request: web.Request) -> web.Response:
        """Whether the user may do what it asks about (`kubectl auth can-i`)."""
        review = await object_of(request)
        asked = dict.fromkeys(("verb", "group", "resource", "namespace", "name"), "")
        asked |= review["spec"].get("resourceAttributes") or {}
        resource = f"{asked['resource']}/{asked.get('subresource', '')}".rstrip("/")
        access = Access(
            user_of(request), asked["verb"], asked["group"], resource, asked["namespace"],
            asked["name"],
        )  # fmt: skip
        refused = any(rule.covers(access) for rule in self.faults.refused)
        status = {"allowed": allowed(self.store, access) and not refused}
        return web.json_response({"metadata": {}, **review, "status": status}, status=201)


async def main(port: int, kubeconfig: Path | None, extensions: list[str], *, tls: bool) -> None:
    """Serves until it is killed; prints the URL."""
    server = KubeServer(extensions, tls=tls)
    await server.start(port)
    if kubeconfig is not None:
        server.kubeconfig(kubeconfig)
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kubeconfig", type=Path, help="where to write how it is reached")
    parser.add_argument("--extension", action="append", default=[], help="a kind it also has")
    parser.add_argument("--tls", action="store_true")
    asked = parser.parse_args()
    asyncio.run(main(asked.port, asked.kubeconfig, asked.extension, tls=asked.tls))
