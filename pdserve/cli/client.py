"""Calls to the router, with errors that a person can act on."""

import argparse
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
from grpc import aio

from pdserve.address import is_host_port
from pdserve.api_keys import bearer
from pdserve.errors import (
    DeadlineError,
    PdserveError,
    UnauthenticatedError,
    UnavailableError,
)
from pdserve.rpc.channel import open_channel
from pdserve.rpc.errors import DETAIL_KEY, from_rpc_error
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc

# Where `pdserve up` puts the router when nothing else is asked for and nobody else is there.
DEFAULT_PORT = 7700
DEFAULT_ROUTER = f"127.0.0.1:{DEFAULT_PORT}"
API_KEY = "PDSERVE_API_KEY"
CALL_TIMEOUT_S = 10.0
# How gRPC says that a name has no address, or that nobody listens there.
_NOBODY_THERE = ("failed to connect", "errors resolving", "resolution")


def add_router_flag(parser: "argparse._ActionsContainer") -> None:
    """Adds --router to a parser or to a group of one."""
    parser.add_argument(
        "--router",
        type=_router_address,
        default=DEFAULT_ROUTER,
        metavar="ADDRESS",
        help="host:port of the router (default: %(default)s)",
    )


def add_timeout_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --timeout-s."""
    parser.add_argument(
        "--timeout-s",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="longest wait for a complete answer (default: %(default)g)",
    )


def _router_address(text: str) -> str:
    if not is_host_port(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port, such as {DEFAULT_ROUTER}")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def credentials() -> tuple[tuple[str, str], ...]:
    """The metadata of every call: the API key in PDSERVE_API_KEY, if there is one.

    Not a flag: a command line is for everybody on the machine to read.
    """
    return bearer(os.environ.get(API_KEY, ""))


@asynccontextmanager
async def inference(address: str) -> AsyncIterator["router_pb2_grpc.InferenceAsyncStub"]:
    """The router's API; inside, gRPC errors become `PdserveError`s with a helpful text."""
    channel = open_channel(address)
    try:
        yield router_pb2_grpc.InferenceStub(channel)
    except aio.AioRpcError as error:
        raise _explained(error, address) from error
    finally:
        await channel.close()


async def generate(
    address: str,
    request: router_pb2.GenerateRequest,
    on_text: Callable[[str], None],
    timeout_s: float,
) -> router_pb2.Finished:
    """Passes the text on as it comes; returns what the router says at the end of it."""
    async with inference(address) as stub:
        async for event in stub.Generate(request, timeout=timeout_s, metadata=credentials()):
            if event.HasField("finished"):
                return event.finished
            on_text(event.delta.text)
    raise UnavailableError(f"the router at {address} ended the answer without saying why")


def _explained(error: aio.AioRpcError, address: str) -> PdserveError:
    spoken = any(key == DETAIL_KEY for key, _ in error.trailing_metadata() or ())
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return UnauthenticatedError(f"{details}; the variable {API_KEY} is where it is taken from")
    if spoken:  # pdserve's own words
        return from_rpc_error(error)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        if any(words in details for words in _NOBODY_THERE):
            return UnavailableError(
                f"no router at {address}; start one with `pdserve up`, or name it with --router"
            )
        return UnavailableError(f"the router at {address} went away: {details}")
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UnavailableError(f"what listens at {address} is not a pdserve router")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"the router at {address} did not complete its answer in time")
    return from_rpc_error(error)
