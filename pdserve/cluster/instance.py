"""What is known of an instance before anyone has spoken to it."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from pdserve.cluster.topology import Topology


class Role(StrEnum):
    """The phase that an instance serves."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class InstanceAddress:
    """Where an instance of a phase listens: `address` is host:port, `name` is for people."""

    role: Role
    address: str
    name: str
    topology: Topology = field(default_factory=Topology)

    @property
    def place(self) -> Topology:
        """The topology; where no node is named, the host of the address is the node."""
        if self.topology.node:
            return self.topology
        return replace(self.topology, node=self.address.rpartition(":")[0])
