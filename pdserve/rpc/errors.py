"""The one mapping between pdserve's exceptions and gRPC status codes, in both directions."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from grpc import aio

from pdserve import errors
from pdserve.rpc.v1 import types_pb2

DETAIL_KEY = "pdserve-error-bin"
# Status and detail travel as HTTP/2 headers: beyond 8 KiB in all, gRPC drops them for an error of
# its own. A text that quotes a request could be of any length.
MAX_TEXT = 1024

# Status codes as https://grpc.github.io/grpc/core/md_doc_statuscodes.html defines them.
_CODES: dict[type[errors.PdserveError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModelError: grpc.StatusCode.NOT_FOUND,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.EngineError: grpc.StatusCode.UNAVAILABLE,
    errors.StaleIncarnationError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.IncompatibleLayoutError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TransferError: grpc.StatusCode.ABORTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnknownRequestError: grpc.StatusCode.NOT_FOUND,
}
_KINDS: list[type[errors.PdserveError]] = [
    *errors.PdserveError.__subclasses__(),
    errors.EngineError,
]
_BY_REASON = {kind.reason: kind for kind in _KINDS}
_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
}
# With these gRPC itself ends a call whose connection is gone, or breaks while it writes.
_CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)


def status_code(error: errors.PdserveError) -> grpc.StatusCode:
    """The status code that stands for `error`."""
    return _CODES.get(type(error), grpc.StatusCode.INTERNAL)


async def abort(context: "aio.ServicerContext[Any, Any]", error: errors.PdserveError) -> NoReturn:
    """Ends the call with the status, text and machine-readable detail of `error`."""
    metadata = ((DETAIL_KEY, error_detail(error).SerializeToString()),)
    text = shortened(str(error))
    await context.abort(status_code(error), text, trailing_metadata=metadata)
    raise AssertionError("context.abort raises")


def error_detail(error: errors.PdserveError) -> types_pb2.ErrorDetail:
    """The machine-readable part of `error`."""
    return types_pb2.ErrorDetail(
        reason=error.reason,
        field=shortened(error.field),
        limit=shortened(error.limit),
        retry_after_s=error.retry_after_s,
    )


def shortened(text: str) -> str:
    """`text`, cut where it is longer than an error may be."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def from_rpc_error(call_error: grpc.RpcError) -> errors.PdserveError:
    """The exception that the server raised, as well as its status tells."""
    code = call_error.code()
    text = call_error.details() or code.name
    if is_cut(call_error):
        return errors.UnavailableError(text)
    detail = sent_detail(call_error) or types_pb2.ErrorDetail()
    kind = _BY_REASON.get(detail.reason) or _BY_CODE.get(code, errors.PdserveError)
    return kind(text, field=detail.field, limit=detail.limit, retry_after_s=detail.retry_after_s)


def is_cut(call_error: grpc.RpcError) -> bool:
    """Whether gRPC ended the call, and no server: the connection is gone."""
    return call_error.code() in _CUT and sent_detail(call_error) is None


def sent_detail(call_error: grpc.RpcError) -> types_pb2.ErrorDetail | None:
    """What the server said of its error; None where no pdserve service spoke."""
    # Pairs on either API of gRPC, whatever its annotations say.
    metadata: Any = call_error.trailing_metadata() or ()
    values = (value for key, value in metadata if key == DETAIL_KEY and isinstance(value, bytes))
    value = next(values, None)
    return None if value is None else types_pb2.ErrorDetail.FromString(value)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises pdserve's exceptions for the gRPC errors of the calls inside."""
    try:
        yield
    except aio.AioRpcError as error:
        raise from_rpc_error(error) from error


Method = Callable[[Any, Any, "aio.ServicerContext[Any, Any]"], Awaitable[Any]]


def servicer_method(method: Method) -> Method:
    """Decorates a servicer method: a `PdserveError` ends the call with its status.

    Streaming methods are coroutines too and send with `context.write`: unlike an async generator,
    which gRPC leaves to the garbage collector, a cancelled coroutine runs its `finally` at once.
    """

    @functools.wraps(method)
    async def handler(self: Any, request: Any, context: "aio.ServicerContext[Any, Any]") -> Any:
        try:
            return await method(self, request, context)
        except errors.PdserveError as error:
            return await abort(context, error)

    return handler
