"""A Kubernetes API server for tests: real HTTP, no controllers.

What a cluster would do with the objects (start pods, fill EndpointSlices) the test does itself,
through `store` or through the API.
"""

import argparse
import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from aiohttp import web

from tests.doubles.kube import protobuf
from tests.doubles.kube.access import Access, Faults
from tests.doubles.kube.api import Api, Write, flag
from tests.doubles.kube.discovery import discovery_document
from tests.doubles.kube.errors import ApiError, bad_request, forbidden, not_served
from tests.doubles.kube.openapi import openapi_document
from tests.doubles.kube.ownership import Manager
from tests.doubles.kube.paths import Target, target_of
from tests.doubles.kube.resources import Resources
from tests.doubles.kube.store import Manifest, Store

VERSION = "1.37.1"
# Larger than any release that helm stores.
BODY_BYTES = 16 << 20
ADMIN = "admin"
JSON = "application/json"
APPLIED = "application/apply-patch+yaml"


class KubeServer:
    """An API server on a free port of loopback while it is entered.

    `extensions` are the kinds of resources.EXTENSIONS that this cluster has, `version` is the one
    of Kubernetes that it claims to be, `history_limit` how many changes of each resource a watch
    can go back, `bookmark_interval_s` how often watches get bookmarks. A bearer token is taken for
    the name of the user. All methods belong into the event loop that entered it.
    """

    def __init__(
        self,
        extensions: Iterable[str] = (),
        *,
        version: str = VERSION,
        history_limit: int = 1000,
        bookmark_interval_s: float = 60.0,
    ) -> None:
        self.store = Store(Resources(extensions), history_limit)
        self.faults = Faults()
        self.access_log: list[Access] = []
        self.url = ""
        self._version = version
        self._api = Api(
            self.store, self.faults, version=version, bookmark_interval_s=bookmark_interval_s
        )
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
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends all watches and listens no more; the objects stay."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, path: Path, *, user: str = ADMIN, namespace: str = "default") -> Path:
        """Writes the configuration with which clients reach the server as that user."""
        context = {"cluster": "test", "user": user, "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": user, "user": {"token": user}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        return path

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

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.faults.delay_s:
            await asyncio.sleep(self.faults.delay_s)
        try:
            document = discovery_document(
                self.store.resources, request.path, self._version
            ) or openapi_document(self.store.resources, request.path)
            if document is not None:
                return web.json_response(document)
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
                return await self._api.watch(request, target, query)
            case "list":
                return web.json_response(self._api.list(target, query))
            case "get":
                return web.json_response(self._api.get(target))
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
        user = request.headers.get("Authorization", "").removeprefix("Bearer ")
        access = Access(
            user or "system:anonymous", verb, resource.group, plural, target.namespace, target.name
        )
        self.access_log.append(access)
        if any(rule.covers(access) for rule in self.faults.refused):
            raise forbidden(access.user, verb, plural, resource.group, target.namespace)
        if any(rule.covers(access) for rule in self.faults.failing):
            raise ApiError(500, "InternalError", "the server fails on purpose")


def verb_of(request: web.Request, target: Target) -> str:
    """The verb of RBAC for a request."""
    if request.method in ("GET", "HEAD"):
        if flag(request.query, "watch"):
            return "watch"
        return "get" if target.name else "list"
    if request.method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(request.method, "")


def write_of(request: web.Request, target: Target, operation: str = "Update") -> Write:
    """Who writes by this request, and how."""
    query = request.query
    name: str = query.get("fieldManager") or request.headers.get("User-Agent") or "unknown"
    return Write(
        Manager(name.partition("/")[0], operation, target.subresource),
        strict=query.get("fieldValidation") == "Strict",
        dry_run="dryRun" in query,
        force=flag(query, "force"),
    )


async def body_of(request: web.Request) -> tuple[str, Any]:
    """The content type of the body (JSON where none is stated) and what is in it."""
    kind = request.headers.get("Content-Type", JSON).partition(";")[0]
    body = await request.read()
    if not body:
        return kind, {}
    if kind == protobuf.CONTENT_TYPE:
        return kind, protobuf.decoded(body)
    if not kind.endswith(("json", "yaml")):
        message = f"the body of the request was in an unknown format ({kind})"
        raise ApiError(415, "UnsupportedMediaType", message)
    try:
        # Clients write JSON where YAML is meant.
        return kind, json.loads(body) if body[:1] in b"{[" else yaml.safe_load(body)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body cannot be read: {error}") from error


async def object_of(request: web.Request) -> Manifest:
    """The object in the body; empty where there is none."""
    _, found = await body_of(request)
    if not isinstance(found or {}, dict):
        raise bad_request("the body is no object")
    return found or {}


async def main(port: int, kubeconfig: Path | None, extensions: list[str]) -> None:
    """Serves until it is killed; prints the URL."""
    server = KubeServer(extensions)
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
    arguments = parser.parse_args()
    asyncio.run(main(arguments.port, arguments.kubeconfig, arguments.extension))
