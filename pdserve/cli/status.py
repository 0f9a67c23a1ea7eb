"""`pdserve status`: the cluster as the router sees it."""

import argparse
import asyncio

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from pdserve.cli.client import CALL_TIMEOUT_S, add_router_flag, credentials, inference
from pdserve.cli.terminal import output_console
from pdserve.rpc.v1 import router_pb2, types_pb2

add_flags = add_router_flag

_ROLES = {types_pb2.ROLE_PREFILL: "prefill", types_pb2.ROLE_DECODE: "decode"}
_COLORS = {"up": "green", "down": "red", "silent": "red"}
_BLOCKS = "KV blocks"
_COLUMNS = ("instance", "role", "address", "state", "running", "waiting", _BLOCKS)


def run(arguments: argparse.Namespace) -> int:
    """Prints a table of instances, then what is wrong with them."""
    answer = asyncio.run(_ask(arguments.router))
    console = output_console()
    console.print(cluster_table(answer))
    for instance in answer.instances:
        if instance.detail:
            text = f"{instance.name}: {instance.detail}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{answer.running_requests} requests running")
    return 0


async def _ask(address: str) -> router_pb2.GetClusterResponse:
    async with inference(address) as stub:
        return await stub.GetCluster(
            router_pb2.GetClusterRequest(),
            timeout=CALL_TIMEOUT_S,
            metadata=credentials(),
        )


def cluster_table(answer: router_pb2.GetClusterResponse) -> Table:
    """One row an instance."""
    caption = f"{_BLOCKS}: free/active/cached/quarantined"
    table = Table(box=SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    for column in _COLUMNS:
        # Large counts break first where the terminal is narrow: an address that is cut is useless.
        table.add_column(column, no_wrap=column != _BLOCKS, overflow="fold")
    for instance in answer.instances:
        table.add_row(*_row(instance))
    return table


def _row(instance: router_pb2.InstanceStatus) -> tuple[str | Text, ...]:
    report = instance.report
    blocks = report.blocks
    return (
        instance.name,
        _ROLES.get(instance.role, "-"),
        instance.address,
        Text(instance.state, style=_COLORS.get(instance.state, "yellow")),
        str(report.running_requests),
        str(report.waiting_requests),
        f"{blocks.free}/{blocks.active}/{blocks.cached}/{blocks.quarantined}",
    )
