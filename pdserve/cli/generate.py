"""`pdserve generate`: one answer, streamed."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console

from pdserve.cli.client import (
    add_router_flag,
    add_timeout_flag,
    add_tls_flags,
    async_router_client,
    router_tls,
)
from pdserve.cli.cluster_options import load_cluster_spec
from pdserve.cli.cluster_view import important_lines, processes_table, watching_start
from pdserve.cli.ledger_view import answer_view
from pdserve.cli.local_cluster import LocalCluster
from pdserve.cli.sampling_flags import add_sampling_flags, options_from
from pdserve.cli.terminal import output_console, write_text
from pdserve.cli.terms_flags import add_terms_flags, terms_from
from pdserve.client import Answer, AsyncClient, AsyncStream, Message, Options, Prompt
from pdserve.errors import InvalidRequestError, PdserveError
from pdserve.rpc.tls_identity import door_client


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
    parser.add_argument(
        "--request-id", default="", metavar="ID", help="what logs and `explain` know it by"
    )
    add_sampling_flags(parser)
    add_terms_flags(parser)
    add_tls_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Streams the answer to stdout; everything else goes to stderr, but what --explain shows."""
    options = options_from(arguments) | terms_from(arguments)
    options["request_id"] = arguments.request_id
    return asyncio.run(_generate(_prompt(arguments), options, arguments))


async def _generate(prompt: Prompt, options: Options, arguments: argparse.Namespace) -> int:
    if not arguments.up:
        tls = router_tls(arguments)
        async with async_router_client(arguments.router, tls) as client:
            await _answer(client, prompt, options, explain=arguments.explain)
        return 0
    async with _temporary_cluster(arguments.model) as cluster:
        tls = door_client(cluster.spec.router)
        # The cluster serves the model that was named, under a name of its own.
        unnamed = options | Options(model="")
        async with async_router_client(cluster.router_address, tls) as client:
            await _answer(client, prompt, unnamed, explain=arguments.explain)
        if arguments.explain:
            output_console().print(processes_table(cluster.processes))
    return 0


async def _answer(client: AsyncClient, prompt: Prompt, options: Options, *, explain: bool) -> None:
    answer = await show_answer(client.stream(prompt, **options))
    if explain:
        output_console().print(answer_view(answer))


async def show_answer(stream: AsyncStream) -> Answer:
    """Shows the text as it comes, then ends the line; returns the answer.

    The line ends too where the answer fails on the way: an error must not be glued to it.
    """
    shown = False
    async with stream:
        try:
            async for piece in stream:
                shown = shown or bool(piece.text)
                write_text(piece.text)
        except PdserveError:
            if shown:
                write_text("\n")
            raise
    write_text("\n")
    return stream.answer


def _prompt(arguments: argparse.Namespace) -> Prompt:
    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if arguments.raw and arguments.system:
        raise InvalidRequestError("a system message needs --chat", field="system")
    if arguments.raw:
        return str(text)
    system = [Message("system", arguments.system)] if arguments.system else []
    return [*system, Message("user", text)]


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
