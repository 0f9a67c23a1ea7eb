"""`pdserve status`: the cluster as the router sees it."""

import argparse
from collections.abc import Iterable

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from pdserve.cli.client import add_connection_flags, router_client
from pdserve.cli.terminal import output_console
from pdserve.client import Cluster, Instance, Link

add_flags = add_connection_flags

_COLORS = {"up": "green", "down": "red", "silent": "red"}
_BREAKERS = {"closed": "green", "open": "red", "half_open": "yellow"}
_BLOCKS = "KV blocks"
_INSTANCE_COLUMNS = ("instance", "role", "address", "state", "running", "waiting", _BLOCKS)
_LINK_COLUMNS = ("prefill", "decode", "distance", "GB/s", "transfers", "last", "breaker")


def run(arguments: argparse.Namespace) -> int:
    """Prints a table of instances and what is wrong with them, then one of links, if any."""
    with router_client(arguments) as client:
        cluster = client.cluster()
    console = output_console()
    console.print(instances_table(cluster.instances))
    for instance in cluster.instances:
        if instance.detail:
            text = f"{instance.name}: {instance.detail}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    if cluster.discovery_problem:
        text = f"discovery: {cluster.discovery_problem}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if cluster.links:
        console.print(links_table(cluster.links))
    console.print(_requests(cluster))
    return 0


def instances_table(instances: Iterable[Instance]) -> Table:
    """One row an instance."""
    caption = f"{_BLOCKS}: free/active/cached/quarantined"
    table = Table(box=SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    for column in _INSTANCE_COLUMNS:
        # Large counts break first where the terminal is narrow: an address that is cut is useless.
        table.add_column(column, no_wrap=column != _BLOCKS, overflow="fold")
    for instance in instances:
        load, blocks = instance.load, instance.load.blocks
        table.add_row(
            instance.name,
            instance.role or "-",
            instance.address,
            Text(instance.state, style=_COLORS.get(instance.state, "yellow")),
            str(load.running_requests),
            str(load.waiting_requests),
            f"{blocks.free}/{blocks.active}/{blocks.cached}/{blocks.quarantined}",
        )
    return table


def links_table(links: Iterable[Link]) -> Table:
    """One row a link; a bandwidth that nothing has been measured of is in brackets."""
    caption = "GB/s in brackets: assumed, nothing has been measured"
    table = Table(box=SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    for column in _LINK_COLUMNS:
        right = column in ("GB/s", "transfers", "last")
        table.add_column(column, no_wrap=True, justify="right" if right else "left")
    for link in links:
        speed = f"{link.bandwidth_bytes_per_s / 1e9:.3g}"
        table.add_row(
            link.prefill,
            link.decode,
            link.distance,
            speed if link.transfers else f"({speed})",
            str(link.transfers),
            f"{link.age_s:.0f} s ago" if link.transfers else "-",
            Text(link.breaker.replace("_", " "), style=_BREAKERS.get(link.breaker, "yellow")),
        )
    return table


def _requests(cluster: Cluster) -> str:
    running = f"{cluster.running_requests} requests running"
    queued = cluster.queued_requests
    return f"{running}, {queued} queued" if queued else running
