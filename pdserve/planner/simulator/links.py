"""The links between instances, as the network model wants them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.planner.simulator.state import LEVELS, Array


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Which links KV crosses from one instance to another.

    `bytes_per_s`, `[links]`, is each link's speed. `outward` and `inward`, `[instances, 4]`, are
    the links by which an instance's KV leaves and enters: its GPUs' ports within a node, its
    node's network card, its rack's uplink, its zone's uplink. `place`, `[instances, 3]`, says which
    node, rack and zone it is in. `latency_s` is added to each transfer.
    """

    bytes_per_s: Array
    outward: Array
    inward: Array
    place: Array
    latency_s: float = 0.0


def separate_links(instances: int, bytes_per_s: float, latency_s: float = 0.0) -> Links:
    """Every instance on a node of its own with a network card of `bytes_per_s` each way."""
    own = np.arange(instances)
    apart = np.zeros((instances, LEVELS - 1), np.int64)
    apart[:, 0] = own
    return Links(
        bytes_per_s=np.full(2 * instances, bytes_per_s),
        outward=np.repeat(own[:, None], LEVELS, axis=1),
        inward=np.repeat(own[:, None] + instances, LEVELS, axis=1),
        place=apart,
        latency_s=latency_s,
    )


class LinkTable:
    """Gathers links by name while they are being described."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._speeds: list[float] = []
        self._index: dict[str, int] = {}

    def link(self, name: str, bytes_per_s: float) -> int:
        """The index of the link `name`, which is new or has been described before."""
        if name not in self._index:
            self._index[name] = len(self.names)
            self.names.append(name)
            self._speeds.append(bytes_per_s)
        return self._index[name]

    def links(
        self,
        outward: Sequence[Sequence[int]],
        inward: Sequence[Sequence[int]],
        place: Sequence[Sequence[int]],
        latency_s: float,
    ) -> Links:
        """All of them, with the instances' ends."""
        return Links(
            bytes_per_s=np.array(self._speeds, np.float64),
            outward=np.array(outward, np.int64).reshape(-1, LEVELS),
            inward=np.array(inward, np.int64).reshape(-1, LEVELS),
            place=np.array(place, np.int64).reshape(-1, LEVELS - 1),
            latency_s=latency_s,
        )
