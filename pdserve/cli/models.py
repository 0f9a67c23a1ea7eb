"""`pdserve models`: what the router serves."""

import argparse
import asyncio

from rich.table import Table

from pdserve.cli.client import CALL_TIMEOUT_S, add_router_flag, credentials, inference
from pdserve.cli.terminal import output_console
from pdserve.rpc.v1 import router_pb2

add_flags = add_router_flag


def run(arguments: argparse.Namespace) -> int:
    """Prints a table of models."""
    answer = asyncio.run(_ask(arguments.router))
    output_console().print(models_table(answer))
    return 0


async def _ask(address: str) -> router_pb2.ListModelsResponse:
    async with inference(address) as stub:
        return await stub.ListModels(
            router_pb2.ListModelsRequest(),
            timeout=CALL_TIMEOUT_S,
            metadata=credentials(),
        )


def models_table(answer: router_pb2.ListModelsResponse) -> Table:
    """One row a model."""
    table = Table()
    table.add_column("model")
    table.add_column("context, tokens", justify="right")
    table.add_column("vocabulary", justify="right")
    table.add_column("ready")
    for model in answer.models:
        ready = "[green]yes[/]" if model.ready else "[yellow]not now[/]"
        table.add_row(model.id, str(model.context_length), str(model.vocab_size), ready)
    return table
