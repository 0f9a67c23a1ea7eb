"""Reads from a Kubernetes API server, as plain JSON.

Configuration, authentication and TLS are those of the `kubernetes` client. Its models are left out:
they take seconds to import, and a pod takes a millisecond to become one.
"""

import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import yaml

from pdserve.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient
    from kubernetes.aio.client.rest import RESTResponse

GONE = 410
BAD_REQUEST = 400
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PAGE = 500
_CONNECT_S = 5.0
_ANSWER_S = 30.0
# A connection may be dead without a word: a watch that is quiet for so long is made anew.
_QUIET_S = 60.0
# Drawn anew for each watch, so that those of many routers do not end together.
_WATCH_S = (240, 480)
# Far more than the largest object that an API server stores.
_LONGEST_EVENT_BYTES = 16 << 20

# What the client raises for files that are not as they should be.
_BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError)

T = TypeVar("T")
# An object of the API, or an event of a watch, as its JSON says it.
Json = dict[str, Any]


class KubernetesApiError(UnavailableError):
    """The API server refused or did not answer; `status` is that of HTTP, 0 where there is none."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a list, and the version of the cluster that they were read at."""

    items: list[Json]
    version: str


class KubernetesApi:
    """An API server; `namespace` is the one that its configuration names as the default.

    Methods raise `KubernetesApiError`.
    """

    def __init__(self, client: "ApiClient", namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    async def get(self, path: str) -> Json:
        """The object at a path such as `/api/v1/nodes/gpu-7`."""
        return await _answered(self._read(path, {}), path)

    async def list_all(self, path: str, selector: str = "") -> Listing:
        """The objects below a path such as `/api/v1/nodes` with labels that `selector` matches."""
        query = {"limit": str(_PAGE)}
        if selector:
            query["labelSelector"] = selector
        items: list[Json] = []
        while True:
            page = await _answered(self._read(path, query), path)
            items += page.get("items") or []
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                return Listing(items, metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    async def watch(
        self, path: str, selector: str, version: str
    ) -> AsyncGenerator[list[Json], None]:
        """What changes after `version`, as events; those that arrive together come together.

        None come first, as soon as the stream is open. Ends when the stream does, however that
        comes about, or when it is quiet for long: the next one tells whether anything is wrong.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(*_WATCH_S)),
        }
        if selector:
            query["labelSelector"] = selector
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=_QUIET_S)
        response = await _answered(self._request(path, query, timeout), path)
        try:
            yield []
            async for events in _events(response.response):
                yield events
        finally:
            response.response.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.close()

    async def _read(self, path: str, query: dict[str, str]) -> Json:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S, connect=_CONNECT_S)
        response = await self._request(path, query, timeout)
        answer = json.loads(await response.read())
        if not isinstance(answer, dict):
            raise ValueError("the answer is no JSON object")
        return answer

    async def _request(
        self, path: str, query: dict[str, str], timeout: aiohttp.ClientTimeout
    ) -> "RESTResponse":
        from kubernetes.aio.config import ConfigException

        try:
            request = await self._client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
        except ConfigException as error:  # the file of the token, while another takes its place
            raise KubernetesApiError(str(error)) from error
        response = await self._client.call_api(*request, _request_timeout=timeout)
        if response.status != 200:
            text = await response.read()
            raise KubernetesApiError(_refusal(path, response.status, text), response.status)
        return response


@asynccontextmanager
async def kubernetes_api(context: str = "") -> AsyncIterator[KubernetesApi]:
    """The API server that this process is to use, as long as the context is open.

    That is the one of `context` or the current context of KUBECONFIG, else that of the cluster
    which this process runs in, else that of ~/.kube/config. Raises `ConfigError` where there is
    none.
    """
    api = await _connect(context)
    try:
        yield api
    finally:
        await api.close()


def require_client() -> None:
    """Imports the `kubernetes` client; `ConfigError` with what to install where there is none."""
    try:
        import kubernetes.aio.client  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the Kubernetes client is not installed: pip install 'pdserve[kubernetes]'",
            field="kubernetes",
        ) from error


async def _connect(context: str) -> KubernetesApi:
    require_client()
    from kubernetes.aio import config
    from kubernetes.aio.client import ApiClient, Configuration

    configuration = Configuration()
    try:
        if not context and not os.environ.get("KUBECONFIG") and (_ACCOUNT / "token").exists():
            config.load_incluster_config(configuration)
            namespace = (_ACCOUNT / "namespace").read_text().strip()
        else:
            path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
            loader = await config.load_kube_config(
                path, context or None, configuration, persist_config=False
            )
            namespace = loader.current_context["context"].get("namespace") or "default"
        client = ApiClient(configuration)
    except (config.ConfigException, *_BROKEN) as error:
        raise ConfigError(f"no access to Kubernetes: {error}", field="kubernetes") from error
    return KubernetesApi(client, namespace)


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[list[Json], None]:
    rest = b""
    while True:
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError):
            return
        if not chunk:
            return
        # What has no end of line has not come as a whole.
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_EVENT_BYTES:
            raise KubernetesApiError("the watch sends an event without end")
        if events := [_event(line) for line in lines if line.strip()]:
            yield events


def _event(line: bytes) -> Json:
    try:
        event = json.loads(line)
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            text = f"the watch ended: {found.get('message', '')}"
            raise KubernetesApiError(text, int(found.get("code", 0)))
        found["metadata"]["resourceVersion"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KubernetesApiError(f"the watch says what is no event: {line[:80]!r}") from error
    return dict(event)


async def _answered(call: Awaitable[T], path: str) -> T:
    """What the call returns; whatever goes wrong with it becomes a `KubernetesApiError`."""
    try:
        return await call
    except TimeoutError as error:
        raise KubernetesApiError(f"{path}: no answer in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise KubernetesApiError(f"{path}: {error}") from error


def _refusal(path: str, status: int, body: bytes) -> str:
    """What the server says of why it refuses, in its own words where it has any."""
    try:
        words = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        words = body[:200].decode("utf-8", "replace").strip()
    return f"{path}: status {status}: {words}"
