"""`pdserve generate`: one answer, streamed."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console

from pdserve.cli.client import add_router_flag, add_timeout_flag, generate
from pdserve.cli.cluster_options import load_cluster_spec
from pdserve.cli.cluster_view import important_lines, processes_table, watching_start
from pdserve.cli.ledger_view import explanation
from pdserve.cli.local_cluster import LocalCluster
from pdserve.cli.sampling_flags import add_sampling_flags, request_from
from pdserve.cli.terminal import output_console, write_text
from pdserve.errors import InvalidRequestError, PdserveError
from pdserve.rpc.v1 import router_pb2


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the prompt and how to answer it."""
    parser.add_argument("prompt", help="what to answer; - reads it from standard input")
    where = parser.add_mutually_exclusive_group()
    add_router_flag(where)
    where.add_argument(
        "--up", action="store_true", help="start a local cluster for this answer, then stop it"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--chat",
        dest="raw",
        action="store_false",
        default=False,
        help="the prompt is a user's message (default)",
    )
    how.add_argument("--raw", action="store_true", help="the prompt is text to continue")
    parser.add_argument("--system", metavar="TEXT", help="system message, with --chat")
    parser.add_argument("--model", help="the model that must answer (default: the one served)")
    add_timeout_flag(parser)
    parser.add_argument("--explain", action="store_true", help="then show where the time went")
    add_sampling_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Streams the answer to stdout; everything else goes to stderr, but what --explain shows."""
    return asyncio.run(_generate(_request(arguments), arguments))


async def _generate(request: router_pb2.GenerateRequest, arguments: argparse.Namespace) -> int:
    if not arguments.up:
        request.model = arguments.model or ""
        await _answer(arguments.router, request, arguments)
        return 0
    async with _temporary_cluster(arguments.model) as cluster:
        await _answer(cluster.router_address, request, arguments)
        if arguments.explain:
            output_console().print(processes_table(cluster.processes))
    return 0


async def _answer(
    address: str, request: router_pb2.GenerateRequest, arguments: argparse.Namespace
) -> None:
    finished, _ = await show_answer(address, request, arguments.timeout_s)
    if arguments.explain:
        output_console().print(explanation(finished))


async def show_answer(
    address: str, request: router_pb2.GenerateRequest, timeout_s: float
) -> tuple[router_pb2.Finished, str]:
    """Shows the text as it comes, then ends the line; returns the end of the answer and its text.

    The line ends too where the answer fails on the way: an error must not be glued to it.
    """
    parts: list[str] = []

    def show(part: str) -> None:
        parts.append(part)
        write_text(part)

    try:
        finished = await generate(address, request, show, timeout_s)
    except PdserveError:
        if any(parts):
            write_text("\n")
        raise
    write_text("\n")
    return finished, "".join(parts)


def _request(arguments: argparse.Namespace) -> router_pb2.GenerateRequest:
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if arguments.raw and arguments.system:
        raise InvalidRequestError("a system message needs --chat", field="system")
    request = request_from(arguments)
    if arguments.raw:
        request.prompt = prompt
        return request
    if arguments.system:
        request.chat.messages.add(role="system", content=arguments.system)
    request.chat.messages.add(role="user", content=prompt)
    return request


@asynccontextmanager
async def _temporary_cluster(model: str | None) -> AsyncIterator[LocalCluster]:
    """One prefill, one decode, one router, configured by the environment."""
    spec = load_cluster_spec(argparse.Namespace(model=model), os.environ)
    console = Console(stderr=True)
    cluster = LocalCluster(spec, important_lines(console))
    async with watching_start(cluster, console):
        await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()
