"""The one mapping from pdserve's exceptions to HTTP: status, headers and OpenAI's error object.

The object's shape is that of https://platform.openai.com/docs/guides/error-codes; its types and
codes are OpenAI's own words where OpenAI has one for the case.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from pdserve import errors
from pdserve.rpc.errors import shortened

_INVALID = "invalid_request_error"
_SERVER = "server_error"
# What clients are told to wait where the error itself does not say.
_RETRY_AFTER_S = 1.0
_RETRIED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class ParameterError(errors.InvalidRequestError):
    """A parameter is wrong in a way that OpenAI has a code for."""

    def __init__(self, message: str, *, field: str, code: str, limit: str = "") -> None:
        super().__init__(message, field=field, limit=limit)
        self.code = code


@dataclass(frozen=True, slots=True)
class HttpError:
    """An error as HTTP tells it. `param` is the parameter that is wrong, None where none is."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The error object that OpenAI's clients read."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


# Status, type and code. Statuses as RFC 9110 defines them.
_KINDS: dict[type[errors.PdserveError], tuple[HTTPStatus, str, str]] = {
    errors.InvalidRequestError: (HTTPStatus.BAD_REQUEST, _INVALID, "invalid_value"),
    errors.UnknownModelError: (HTTPStatus.NOT_FOUND, _INVALID, "model_not_found"),
    errors.UnknownRequestError: (HTTPStatus.NOT_FOUND, _INVALID, "request_not_found"),
    errors.UnauthenticatedError: (HTTPStatus.UNAUTHORIZED, _INVALID, "invalid_api_key"),
    errors.OverloadedError: (HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "overloaded"),
    errors.UnavailableError: (HTTPStatus.SERVICE_UNAVAILABLE, _SERVER, "unavailable"),
    errors.DeadlineError: (HTTPStatus.GATEWAY_TIMEOUT, _SERVER, "deadline_exceeded"),
}
_INTERNAL = (HTTPStatus.INTERNAL_SERVER_ERROR, _SERVER, "internal")
# What goes wrong in HTTP itself, before there is a request.
_PROTOCOL_CODES = {
    HTTPStatus.NOT_FOUND: "unknown_url",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
}


def http_error(
    error: errors.PdserveError, names: Mapping[str, str] = MappingProxyType({})
) -> HttpError:
    """How HTTP tells `error`; `names` are the HTTP API's own names of fields."""
    kinds = (_KINDS[kind] for kind in type(error).__mro__ if kind in _KINDS)
    status, kind, code = next(kinds, _INTERNAL)
    if isinstance(error, ParameterError):
        code = error.code
    headers: dict[str, str] = {}
    if status in _RETRIED:
        wait_s = max(error.retry_after_s, _RETRY_AFTER_S)
        headers["Retry-After"] = str(math.ceil(wait_s))
        if error.retry_after_s > 0:
            # More exactly, as OpenAI's clients read it.
            headers["Retry-After-Ms"] = str(math.ceil(error.retry_after_s * 1000))
    elif status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    elif status is HTTPStatus.GATEWAY_TIMEOUT:
        # OpenAI's clients would send it again, for as long once more.
        headers["X-Should-Retry"] = "false"
    param = shortened(names.get(error.field, error.field)) or None
    return HttpError(status, kind, code, shortened(str(error)), param, headers)


def protocol_error(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> HttpError:
    """How HTTP tells that it was itself not spoken as it should be: `status` is 4xx."""
    code = _PROTOCOL_CODES.get(HTTPStatus(status), "invalid_request")
    return HttpError(status, _INVALID, code, shortened(message), None, headers or {})


def internal_error() -> HttpError:
    """What is told of a bug: nothing but that it is one."""
    status, kind, code = _INTERNAL
    return HttpError(status, kind, code, "internal error; the router's log tells more")
