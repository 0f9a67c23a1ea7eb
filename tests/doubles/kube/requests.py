"""What an HTTP request to the API says: who asks, for what, how, and what is in the body."""

import json
from typing import Any

import yaml
from aiohttp import web

from tests.doubles.kube import protobuf
from tests.doubles.kube.api import Shape, Write, flag
from tests.doubles.kube.errors import ApiError, bad_request
from tests.doubles.kube.ownership import Manager
from tests.doubles.kube.paths import Target
from tests.doubles.kube.store import Manifest
from tests.doubles.kube.tables import table, wants_table

JSON = "application/json"
APPLIED = "application/apply-patch+yaml"


def user_of(request: web.Request) -> str:
    """Who asks: the bearer token is the name."""
    _, _, token = request.headers.get("Authorization", "").partition(" ")
    return token or "system:anonymous"


def shape_for(request: web.Request) -> Shape:
    """What makes of an object what the client reads."""
    if wants_table(request.headers.get("Accept", "")):
        return table
    return lambda found: found


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
