"""`pdserve models`: what the router serves."""

import argparse
from collections.abc import Iterable

from rich.table import Table

from pdserve.cli.client import add_connection_flags, router_client
from pdserve.cli.terminal import output_console
from pdserve.client import Model

add_flags = add_connection_flags


def run(arguments: argparse.Namespace) -> int:
    """Prints a table of models."""
    with router_client(arguments) as client:
        output_console().print(models_table(client.models()))
    return 0


def models_table(models: Iterable[Model]) -> Table:
    """One row a model."""
    table = Table()
    table.add_column("model")
    table.add_column("context, tokens", justify="right")
    table.add_column("vocabulary", justify="right")
    table.add_column("ready")
    for model in models:
        ready = "[green]yes[/]" if model.ready else "[yellow]not now[/]"
        table.add_row(model.id, str(model.context_length), str(model.vocab_size), ready)
    return table
