"""Lists as tables, which `kubectl get` prints: what people look for first in each kind."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.doubles.kube.store import Manifest

Cell = Callable[[Manifest], Any]


def wants_table(accept: str) -> bool:
    """Whether the client asks for a table before anything else."""
    return "as=Table" in accept.partition(",")[0]


def table(found: Manifest) -> Manifest:
    """The table of a list, or of one object."""
    items = found.get("items", [found])
    kind = found["kind"].removesuffix("List")
    columns = COLUMNS.get(kind, {})
    names = ["Name", *columns, "Age"]
    rows = [
        {
            "cells": [
                item["metadata"]["name"],
                *(cell(item) for cell in columns.values()),
                _age(item),
            ],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            },
        }
        for item in items
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {
            field: found["metadata"][field]
            for field in ("resourceVersion", "continue", "remainingItemCount")
            if field in found["metadata"]
        },
        "columnDefinitions": [_column(name) for name in names],
        "rows": rows,
    }


def _column(name: str) -> dict[str, Any]:
    form = "name" if name == "Name" else ""
    return {"name": name, "type": "string", "format": form, "description": "", "priority": 0}


def _age(manifest: Manifest) -> str:
    made = datetime.fromisoformat(manifest["metadata"]["creationTimestamp"])
    seconds = int((datetime.now(UTC) - made).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _ready_containers(pod: Manifest) -> str:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    ready = sum(status["ready"] for status in statuses)
    return f"{ready}/{len(pod['spec']['containers'])}"


def _phase(pod: Manifest) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return str(pod.get("status", {}).get("phase", "Unknown"))


def _restarts(pod: Manifest) -> str:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return str(sum(status["restartCount"] for status in statuses))


def _ready_replicas(workload: Manifest) -> str:
    ready = workload.get("status", {}).get("readyReplicas", 0)
    return f"{ready}/{workload['spec'].get('replicas', 1)}"


def _ports(service: Manifest) -> str:
    ports = service["spec"].get("ports") or ()
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _node_status(node: Manifest) -> str:
    conditions = node.get("status", {}).get("conditions") or ()
    ready = any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)
    return "Ready" if ready else "NotReady"


COLUMNS: dict[str, dict[str, Cell]] = {
    "Deployment": {"Ready": _ready_replicas},
    "Node": {"Status": _node_status},
    "Pod": {"Ready": _ready_containers, "Status": _phase, "Restarts": _restarts},
    "Service": {
        "Type": lambda service: service["spec"].get("type", "ClusterIP"),
        "Cluster-IP": lambda service: service["spec"].get("clusterIP", "<none>"),
        "Port(s)": _ports,
    },
    "StatefulSet": {"Ready": _ready_replicas},
}
