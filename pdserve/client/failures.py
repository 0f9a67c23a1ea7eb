"""What failed calls to a router become."""

import asyncio

import grpc

from pdserve.errors import DeadlineError, PdserveError, UnavailableError
from pdserve.rpc.errors import from_rpc_error, sent_detail
from pdserve.rpc.handshake import handshake_failure
from pdserve.rpc.tls import ClientTls

# How gRPC says that a name has no address, or that nobody listens there.
_NOBODY_THERE = ("failed to connect", "errors resolving", "resolution")


class NoRouterError(UnavailableError):
    """Nobody listens at the router's address."""


def failure_of(error: grpc.RpcError, address: str, tls: ClientTls | None) -> PdserveError:
    """The router's own error where it spoke, else what became of the call to it."""
    if sent_detail(error) is not None:
        return from_rpc_error(error)
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        if why := handshake_failure(details, tls):
            return UnavailableError(f"no connection to the router at {address}: {why}")
        if any(words in details for words in _NOBODY_THERE):
            return NoRouterError(f"no router at {address}")
        return UnavailableError(f"the router at {address} went away: {details}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return UnavailableError(f"what listens at {address} is not a pdserve router")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"the router at {address} did not complete its answer in time")
    if code is grpc.StatusCode.CANCELLED:
        return cut_off(address)
    return from_rpc_error(error)


def call_was_cut() -> bool:
    """Whether a `CancelledError` comes of a gRPC call that has ended, not of the task being so."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def cut_off(address: str) -> PdserveError:
    """For calls that end because their client is closed."""
    return UnavailableError(f"the client of the router at {address} was closed")
