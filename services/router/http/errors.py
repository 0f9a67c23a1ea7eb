"""What becomes of a request that fails: every error leaves in OpenAI's shape, under its id."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from pdserve.errors import InvalidRequestError, PdserveError
from pdserve.rpc.http_errors import http_error, internal_error, protocol_error
from services.router.http.headers import REQUEST_ID, request_id_of
from services.router.http.responses import error_response
from services.router.metrics import ClientGoneError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ID = web.RequestKey("request_id", str)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request its id, and turns what the handler raises into a response."""
    try:
        request[ID] = request_id_of(request.headers)
    except InvalidRequestError as error:
        request[ID] = request_id_of({})
        return error_response(http_error(error), _headers(request))
    try:
        response = await handler(request)
    except PdserveError as error:
        return error_response(http_error(error), _headers(request))
    except web.HTTPException as error:
        return _protocol_response(request, error)
    except web.RequestPayloadError as error:
        text = f"the body does not arrive as its headers say: {error}"
        return error_response(protocol_error(400, text), _headers(request))
    except ClientGoneError:
        return _hang_up(request)
    except ConnectionError:
        return _hang_up(request)
    except Exception:
        # The outermost loop of a request: a bug must end neither silently nor the connection.
        log.exception("bug in the HTTP API", extra={"request_id": request[ID]})
        return error_response(internal_error(), _headers(request))
    if not response.prepared:
        response.headers.update(_headers(request))
    return response


def _headers(request: web.Request) -> dict[str, str]:
    return {REQUEST_ID: request[ID]}


def _protocol_response(request: web.Request, error: web.HTTPException) -> web.Response:
    texts = {
        404: f"there is no {request.method} {request.path}",
        405: f"{request.path} does not take {request.method}",
    }
    kept = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    text = texts.get(error.status, error.text or error.reason)
    return error_response(protocol_error(error.status, text, kept), _headers(request))


def _hang_up(request: web.Request) -> web.Response:
    """Ends the connection of a client that is gone; nobody gets what is returned."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
