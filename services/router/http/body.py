"""Receives the JSON body of a request."""

import asyncio
from typing import Any

from aiohttp import web

from services.router.http.json_body import parse_object

# Long enough for any body over any line that is of use, short enough for who only holds a socket.
_BODY_TIMEOUT_S = 30.0


async def read_object(request: web.Request, max_bytes: int) -> dict[str, Any]:
    """The object in the body.

    Raises `InvalidRequestError` for one that is no JSON object, and `web.HTTPException` for a body
    of another type (415), one of more than `max_bytes` (413), and one that takes too long (408).
    """
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(
            text="the body must be JSON, with the header Content-Type: application/json"
        )
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large(max_bytes) from error
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(
            text=f"the body did not arrive within {_BODY_TIMEOUT_S:g} s"
        ) from error
    return parse_object(body)


def _too_large(max_bytes: int) -> web.HTTPRequestEntityTooLarge:
    text = f"the body may have {max_bytes} bytes (max_body_bytes)"
    return web.HTTPRequestEntityTooLarge(max_bytes, text=text)
