"""The machines that a plan is made for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pdserve.errors import ConfigError
from pdserve.latency.hardware import Gpu


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with `gpus` GPUs of one kind.

    `network_bytes_per_s` is what its network cards move in each direction, all together.
    `gpu_hour_price` is in whatever currency the user thinks in; 0: not known.
    """

    name: str
    gpu: Gpu
    gpus: int
    network_bytes_per_s: float
    rack: str = ""
    zone: str = ""
    gpu_hour_price: float = 0.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes, and what their racks and zones move to others in each direction.

    A rack or zone without an uplink here is not a bottleneck. `link_latency_s` is the time of a
    transfer besides that of its bytes.
    """

    nodes: Sequence[Node]
    rack_uplinks: Mapping[str, float] = field(default_factory=dict)
    zone_uplinks: Mapping[str, float] = field(default_factory=dict)
    link_latency_s: float = 1e-3

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ConfigError("a cluster needs at least one node", field="nodes")
        names = Counter(node.name for node in self.nodes)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise ConfigError(f"two nodes are named {twice!r}", field="nodes")

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def kinds(self) -> Mapping[str, Gpu]:
        """The kinds of GPU that there are, by name."""
        return {node.gpu.name: node.gpu for node in self.nodes}

    def nodes_of(self, kind: str) -> Sequence[Node]:
        """The nodes with GPUs of this kind."""
        return [node for node in self.nodes if node.gpu.name == kind]

    def gpus_of(self, kind: str) -> int:
        """How many GPUs of this kind there are."""
        return sum(node.gpus for node in self.nodes_of(kind))

    def price(self, kind: str) -> float:
        """What a GPU of this kind costs an hour, on average; 0 where no node has a price."""
        nodes = self.nodes_of(kind)
        return sum(node.gpu_hour_price * node.gpus for node in nodes) / max(1, self.gpus_of(kind))
