"""`pdserve up`: a local cluster that runs until Ctrl-C."""

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pdserve.cli.client import DEFAULT_PORT
from pdserve.cli.cluster_options import add_cluster_options, load_cluster_spec
from pdserve.cli.cluster_view import important_lines, processes_table, watching_start
from pdserve.cli.local_cluster import LOOPBACK, ROUTER, ClusterSpec, LocalCluster
from pdserve.cli.planned_cluster import planned_cluster_spec
from pdserve.cli.terminal import output_console
from pdserve.config import RouterConfig
from pdserve.errors import ConfigError
from pdserve.rpc.server import check_port_is_free

# Where OpenAI's clients are pointed when nothing else is asked for and nobody else is there.
DEFAULT_HTTP_PORT = 7780
_STATUS_OF = {signal.SIGINT: 130, signal.SIGTERM: 0}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the size of the cluster and the options of its services."""
    parser.epilog = (
        "Options that instances and router share apply to all of them, but --host, --port and "
        "--metrics-port are the router's. A --config file holds options of the instances."
    )
    # No defaults: a plan that is contradicted must be told from one that is not.
    parser.add_argument("--prefill", type=int, help="prefill instances (default: 1)")
    parser.add_argument("--decode", type=int, help="decode instances (default: 1)")
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="plan.yaml whose instances are started, each planned GPU as a CPU core where there "
        "is no GPU",
    )
    add_cluster_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the cluster; 130 after Ctrl-C, 0 after SIGTERM, 1 when nothing can serve any more."""
    return asyncio.run(_up(cluster_spec(arguments, os.environ), Console(stderr=True)))


def cluster_spec(arguments: argparse.Namespace, environ: Mapping[str, str]) -> ClusterSpec:
    """The cluster that flags and environment describe, its router where clients look first."""
    if arguments.plan is not None:
        spec = planned_cluster_spec(arguments, environ)
    else:
        prefill, decode = (
            1 if count is None else count for count in (arguments.prefill, arguments.decode)
        )
        spec = load_cluster_spec(arguments, environ, prefill, decode)
    router = spec.router
    if router.port == 0 and arguments.port is None:
        router = replace(router, port=_free_or_any(router.host, DEFAULT_PORT))
    if router.http_port == 0 and arguments.http_port is None:
        router = replace(router, http_port=_free_or_any(router.host, DEFAULT_HTTP_PORT))
    return replace(spec, router=router)


def _free_or_any(host: str, port: int) -> int:
    """The port that clients try first, or 0 for any where it is taken."""
    try:
        check_port_is_free(host, port)
    except ConfigError:
        return 0
    return port


async def _up(spec: ClusterSpec, console: Console) -> int:
    stop = _StopRequest()
    cluster = LocalCluster(spec, important_lines(console))
    starting = asyncio.create_task(_start(cluster, console), name="start")
    try:
        if not await stop.comes_before(starting):
            starting.result()
            _announce(cluster)
            watching = asyncio.create_task(_until_nothing_serves(cluster, console), name="watch")
            if not await stop.comes_before(watching):
                return 1
        console.print("stopping; running requests may finish")
        return _STATUS_OF[stop.number]
    finally:
        await cluster.stop()


async def _start(cluster: LocalCluster, console: Console) -> None:
    async with watching_start(cluster, console):
        await cluster.start()


def _announce(cluster: LocalCluster) -> None:
    console = output_console()
    console.print(processes_table(cluster.processes))
    address = cluster.router_address
    flag = "" if address == f"{LOOPBACK}:{DEFAULT_PORT}" else f" --router {address}"
    flag += _tls_flags(cluster.spec.router)
    if cluster.http_url:
        console.print(f"OpenAI API at {cluster.http_url}/v1", markup=False, highlight=False)
    console.print(f'router at {address}; ask it with: pdserve generate{flag} "Hello"', markup=False)


def _tls_flags(router: RouterConfig) -> str:
    """What a client needs to know of the router's certificate, as far as it is known here."""
    if router.tls_door_cert:
        return " --tls-ca FILE"
    name = f" --tls-server-name {router.tls_server_name}" if router.tls_server_name else ""
    return f" --tls-ca {router.tls_ca}{name}" if router.tls_ca else ""


async def _until_nothing_serves(cluster: LocalCluster, console: Console) -> None:
    """Reports each process that ends; returns when the router or all decode instances have."""
    alive = set(cluster.processes)
    while ROUTER in alive and any(cluster.processes[name].role == "decode" for name in alive):
        name = await cluster.wait_any_exited(sorted(alive))
        alive.remove(name)
        obituary = cluster.processes[name].obituary()
        console.print(obituary, markup=False, highlight=False, soft_wrap=True)
    console.print("nothing can serve any more", style="red")


class _StopRequest:
    """The first SIGINT or SIGTERM; the second one of either acts as if there were no handler."""

    def __init__(self) -> None:
        self.number = signal.SIGTERM
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in _STATUS_OF:
            self._loop.add_signal_handler(number, self._on_signal, number)

    async def comes_before(self, task: "asyncio.Task[None]") -> bool:
        """Waits for the signal or the end of `task`; the signal cancels the task."""
        asked = asyncio.create_task(self._asked.wait())
        await asyncio.wait({asked, task}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if self._asked.is_set() and not task.done():
            task.cancel()
            await asyncio.wait([task])
        return self._asked.is_set()

    def _on_signal(self, number: signal.Signals) -> None:
        self.number = number
        self._asked.set()
        for each in _STATUS_OF:
            self._loop.remove_signal_handler(each)
