"""What a pod says of the instance that runs in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.topology import Topology

ROLE_LABEL = "pdserve.io/role"
_PORT = "grpc"
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PlaceLabels:
    """Names of the labels that say where a node is."""

    rack: str
    clique: str = "nvidia.com/gpu.clique"
    zone: str = "topology.kubernetes.io/zone"

    def place(self, node: str, *labels: Mapping[str, str]) -> Topology:
        """The topology on that node, by the first of the `labels` that have something to say."""

        def first(name: str) -> str:
            return next((each[name] for each in labels if each.get(name)), "")

        return Topology(node, first(self.clique), first(self.rack), first(self.zone))


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with an instance that may be reached, whether or not it is ready.

    `port` is 0 where no container has a port named `grpc`. `created` sorts by time.
    """

    name: str
    role: Role
    ip: str
    port: int
    node: str
    created: str
    labels: Mapping[str, str]

    @property
    def address(self) -> str:
        """host:port."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    def instance(self, place: Topology) -> InstanceAddress:
        """The instance, which is at `place`."""
        return InstanceAddress(self.role, self.address, self.name, place)


def read_pod(pod: Mapping[str, Any]) -> Pod | None:
    """The pod of this JSON; None where no instance can be in it: no role, no IP yet, or ended.

    A pod that is being deleted still counts, for its instance drains.
    """
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    labels = metadata.get("labels") or {}
    role, ip = labels.get(ROLE_LABEL), status.get("podIP")
    if role not in list(Role) or not ip or status.get("phase") in _ENDED:
        return None
    return Pod(
        name=metadata["name"],
        role=Role(role),
        ip=ip,
        port=_grpc_port(spec),
        node=spec.get("nodeName", ""),
        created=metadata.get("creationTimestamp") or "",
        labels=labels,
    )


def reachable(pods: Iterable[Pod]) -> list[Pod]:
    """The pods with a port, in the order of names; of those with one address the newest.

    The address of a pod may be given to another before the first is gone from the API.
    """
    newest: dict[str, Pod] = {}
    for pod in sorted(pods, key=lambda pod: (pod.created, pod.name)):
        if pod.port:
            newest[pod.address] = pod
    return sorted(newest.values(), key=lambda pod: pod.name)


def _grpc_port(spec: Mapping[str, Any]) -> int:
    ports = (
        port for container in spec.get("containers") or () for port in container.get("ports") or ()
    )
    return next((int(port["containerPort"]) for port in ports if port.get("name") == _PORT), 0)
