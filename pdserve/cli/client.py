"""How commands reach the router, with errors that a person can act on."""

import argparse
import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from pdserve.address import is_host_port
from pdserve.client import AsyncClient, Client, ClientTls, NoRouterError
from pdserve.errors import UnauthenticatedError, UnavailableError

# Where `pdserve up` puts the router when nothing else is asked for and nobody else is there.
DEFAULT_PORT = 7700
DEFAULT_ROUTER = f"127.0.0.1:{DEFAULT_PORT}"
API_KEY = "PDSERVE_API_KEY"
_TLS = {
    "ca": "PEM authorities that the router's certificate must come from; empty: no TLS",
    "cert": "PEM certificate chain to show to the router",
    "key": "PEM private key of --tls-cert",
    "server_name": "name that the router's certificate bears, where it is not its host's",
}


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --router and the flags of TLS."""
    add_router_flag(parser)
    add_tls_flags(parser)


def add_router_flag(parser: "argparse._ActionsContainer") -> None:
    """Adds --router to a parser or to a group of one."""
    parser.add_argument(
        "--router",
        type=_router_address,
        default=DEFAULT_ROUTER,
        metavar="ADDRESS",
        help="host:port of the router (default: %(default)s)",
    )


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of TLS to the router; the environment has their defaults."""
    group = parser.add_argument_group("TLS to the router")
    for name, text in _TLS.items():
        variable = f"PDSERVE_TLS_{name.upper()}"
        flag = f"--tls-{name.replace('_', '-')}"
        default = os.environ.get(variable, "")
        group.add_argument(flag, default=default, metavar=name.upper(), help=f"{text} [{variable}]")


def add_timeout_flag(parser: "argparse._ActionsContainer") -> None:
    """Adds --timeout-s."""
    parser.add_argument(
        "--timeout-s",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="longest wait for a complete answer (default: %(default)g)",
    )


@contextmanager
def router_client(arguments: argparse.Namespace) -> Iterator[Client]:
    """A client of the router that the flags name; inside, errors say what can be done."""
    tls = router_tls(arguments)
    with _advice(), Client(arguments.router, api_key=_api_key(), tls=tls) as client:
        yield client


@asynccontextmanager
async def async_router_client(address: str, tls: ClientTls | None) -> AsyncIterator[AsyncClient]:
    """A client of the router at `address`; inside, errors say what can be done."""
    with _advice():
        async with AsyncClient(address, api_key=_api_key(), tls=tls) as client:
            yield client


def router_tls(arguments: argparse.Namespace) -> ClientTls | None:
    """What the flags say of TLS to the router; None: none. Raises `ConfigError`."""
    ca, cert, key = arguments.tls_ca, arguments.tls_cert, arguments.tls_key
    return ClientTls.read(ca, cert, key, arguments.tls_server_name)


@contextmanager
def _advice() -> Iterator[None]:
    try:
        yield
    except NoRouterError as error:
        text = f"{error}; start one with `pdserve up`, or name it with --router"
        raise UnavailableError(text) from error
    except UnauthenticatedError as error:
        text = f"{error}; the variable {API_KEY} is where it is taken from"
        raise UnauthenticatedError(text) from error


def _api_key() -> str:
    """Not a flag: a command line is for everybody on the machine to read."""
    return os.environ.get(API_KEY, "")


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
