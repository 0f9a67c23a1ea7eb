"""Where an instance is, and how far two of them are apart."""

from dataclasses import dataclass
from enum import StrEnum


class Distance(StrEnum):
    """What the nearest thing is that two instances share, from the nearest to the farthest."""

    NODE = "node"
    # An NVLink domain of several nodes (label nvidia.com/gpu.clique).
    CLIQUE = "clique"
    RACK = "rack"
    ZONE = "zone"
    FAR = "far"


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of the places that an instance is in; an empty one is not known."""

    node: str = ""
    clique: str = ""
    rack: str = ""
    zone: str = ""

    def distance(self, other: "Topology") -> Distance:
        """How far `other` is, as far as both know where they are."""
        for place in (Distance.NODE, Distance.CLIQUE, Distance.RACK, Distance.ZONE):
            here, there = getattr(self, place), getattr(other, place)
            if here and here == there:
                return place
        return Distance.FAR
