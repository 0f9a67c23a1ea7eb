"""What a cluster's processes do, for people to watch."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pdserve.cli.local_cluster import LocalCluster
from pdserve.cli.log_line import is_important
from pdserve.cli.service_process import ServiceProcess, State

_REFRESH_S = 0.1
_COLORS = {
    State.STARTING: "yellow",
    State.SERVING: "green",
    State.NOT_SERVING: "yellow",
    State.EXITED: "red",
}


@asynccontextmanager
async def watching_start(cluster: LocalCluster, console: Console) -> AsyncIterator[None]:
    """Shows, while the body runs, how each process of the cluster gets on."""
    show = _animate if console.is_terminal else _print_changes
    task = asyncio.create_task(show(cluster, console), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def processes_table(processes: Mapping[str, ServiceProcess]) -> Table:
    """Who is who: name, pid, address, metrics."""
    table = Table(title="Processes", title_justify="left", box=SIMPLE, pad_edge=False)
    for column in ("process", "pid", "address", "metrics"):
        table.add_column(column, no_wrap=True)
    for process in processes.values():
        metrics = process.facts.get("metrics", "-")
        table.add_row(process.name, str(process.pid), process.address, metrics)
    return table


def important_lines(console: Console) -> Callable[[ServiceProcess, str], None]:
    """Prints what a child says where it is a warning, an error, or not structured at all.

    Nothing while it starts: should it fail to, its last lines are part of the error.
    """

    def show(process: ServiceProcess, line: str) -> None:
        if process.state is not State.STARTING and is_important(line):
            text = f"{process.name} | {line}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    return show


async def _animate(cluster: LocalCluster, console: Console) -> None:
    began = time.monotonic()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            live.update(_progress(cluster, time.monotonic() - began), refresh=True)
            await asyncio.sleep(_REFRESH_S)


def _progress(cluster: LocalCluster, seconds: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for process in cluster.processes.values():
        doing = process.progress if process.state is State.STARTING else process.address
        table.add_row(process.name, _colored(process.state), Text(doing))
    table.add_row("", "", f"{seconds:.0f} s")
    return table


async def _print_changes(cluster: LocalCluster, console: Console) -> None:
    seen: dict[str, State] = {}
    try:
        while True:
            _print_new(cluster, console, seen)
            await asyncio.sleep(_REFRESH_S)
    finally:
        _print_new(cluster, console, seen)


def _print_new(cluster: LocalCluster, console: Console, seen: dict[str, State]) -> None:
    for name, process in cluster.processes.items():
        if seen.get(name) != process.state:
            seen[name] = process.state
            console.print(f"{name}: {process.state}", highlight=False)


def _colored(state: State) -> Text:
    return Text(state, style=_COLORS[state])
