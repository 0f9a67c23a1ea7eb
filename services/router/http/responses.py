"""Responses in one piece."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from pdserve.rpc.http_errors import HttpError
from services.router.http.json_text import to_json


def json_response(
    document: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A response whose body is `document`."""
    return web.Response(
        text=to_json(document), status=status, headers=headers, content_type="application/json"
    )


def error_response(error: HttpError, headers: Mapping[str, str]) -> web.Response:
    """The response that tells `error`; `headers` come besides the error's own."""
    return json_response(error.body(), status=error.status, headers={**error.headers, **headers})
