"""Messages that cannot be parsed: the client's fault, and told so.

gRPC by itself answers UNKNOWN, as it does where a server has a bug, and logs a traceback.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pdserve.errors import InvalidRequestError
from pdserve.rpc.errors import abort

Behavior = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a message that could not be parsed."""

    reason: str


def refusing_malformed(
    method: "grpc.RpcMethodHandler[Any, Any]",
) -> "grpc.RpcMethodHandler[Any, Any]":
    """The method, but a request that cannot be parsed ends the call with INVALID_ARGUMENT.

    Methods are coroutines; one that takes a stream of messages is returned as it is.
    """
    if method.request_streaming:
        return method
    options = {
        "request_deserializer": _tolerant(method.request_deserializer),
        "response_serializer": method.response_serializer,
    }
    if method.response_streaming:
        return grpc.unary_stream_rpc_method_handler(_checked(method.unary_stream), **options)
    return grpc.unary_unary_rpc_method_handler(_checked(method.unary_unary), **options)


def _tolerant(parse: Any) -> Any:
    def deserialize(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            return _Malformed(str(error))

    return deserialize


def _checked(behavior: Any) -> Behavior:
    async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        if isinstance(request, _Malformed):
            error = InvalidRequestError(f"the message is malformed: {request.reason}")
            await abort(context, error)
        return await behavior(request, context)

    return answer
