"""Services that are registered while the server already runs."""

from collections.abc import Sequence
from typing import Any

import grpc

from pdserve.errors import UnavailableError
from pdserve.rpc.arrival import note_arrival
from pdserve.rpc.errors import abort
from pdserve.rpc.malformed import refusing_malformed


class LateServices(grpc.GenericRpcHandler):
    """Routes calls to handlers that may be added at any time; until then they are UNAVAILABLE.

    A process answers health checks while it loads its model, so its server runs before there is
    anything to serve, but gRPC takes handlers only before the start. The generated functions
    `add_…Servicer_to_server` take an object of this class for the server.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._prefixes = tuple(f"/{name}/" for name in services)
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds the methods of a service."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Part of the server's interface; generic handlers do all that is needed."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The method that was called; None where this server does not have it."""
        # gRPC asks in the task that then reads the message and runs the method.
        note_arrival()
        for handler in self._handlers:
            method = handler.service(handler_call_details)
            if method is not None:
                return refusing_malformed(method)
        if not self._handlers and handler_call_details.method.startswith(self._prefixes):
            return grpc.unary_unary_rpc_method_handler(_refuse)
        return None


async def _refuse(_: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    await abort(context, UnavailableError("the service is loading"))
