"""The cluster to plan for, read from Kubernetes."""

import asyncio
import math

from rich.console import Console

from pdserve.cluster.kubernetes_api import FORBIDDEN, Json, KubernetesApiError, kubernetes_api
from pdserve.errors import ConfigError
from pdserve.planner.cluster import Cluster
from pdserve.planner.kube_nodes import NodeTerms, cluster_of_nodes


def kube_cluster(context: str, terms: NodeTerms) -> Cluster:
    """The GPUs of the cluster that `context` names which are free, with notes on stderr.

    The context "" is the current one. Raises `ConfigError` where there is no access or no free GPU,
    or where several nodes would have a network without a limit, and `KubernetesApiError`.
    """
    nodes, pods, notes = asyncio.run(_read(context))
    cluster, told = cluster_of_nodes(nodes, pods, terms)
    if len(cluster.nodes) > 1 and math.isinf(terms.network_bytes_per_s):
        raise ConfigError(
            f"no --network-gbps: {len(cluster.nodes)} nodes hand KV over their network, of which "
            "Kubernetes does not tell",
            field="network_gbps",
        )
    console = Console(stderr=True)
    for note in [*notes, *told]:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    return cluster


async def _read(context: str) -> tuple[list[Json], list[Json], list[str]]:
    """Nodes, pods, and notes."""
    async with kubernetes_api(context) as api:
        nodes = (await api.list_all("/api/v1/nodes")).items
        try:
            return nodes, (await api.list_all("/api/v1/pods")).items, []
        except KubernetesApiError as error:
            if error.status != FORBIDDEN:
                raise
            return nodes, [], [f"GPUs in use are not known, all are taken for free: {error}"]
