"""A plan: which instances there are, where each one is, and how they are run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["prefill", "decode", "both"]
# How the phases share the cluster. `apart`: each phase by itself, wherever there is room
# (DistServe's algorithm 1); `paired`: prefill and decode of a stage share a node (its algorithm 2);
# `colocated`: every instance does both, in chunks or whole prompts first.
Layout = Literal["apart", "paired", "colocated-chunked", "colocated-whole"]

ANYWHERE = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage: its `tp` ranks, on the GPUs with these indices of one node."""

    node: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One instance. Prefill hands KV to the decode instances of its `group` only."""

    name: str
    role: Role
    gpu: str
    tp: int
    pp: int
    max_batch_tokens: int
    max_batch_seqs: int
    stages: tuple[Stage, ...]
    group: int = ANYWHERE

    @property
    def gpus(self) -> int:
        """How many GPUs it takes."""
        return self.tp * self.pp

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node of each stage."""
        return tuple(stage.node for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Shape:
    """Instances that differ in nothing but their place."""

    role: Role
    gpu: str
    tp: int
    pp: int
    max_batch_tokens: int
    max_batch_seqs: int

    @property
    def gpus(self) -> int:
        """How many GPUs one of them takes."""
        return self.tp * self.pp

    def __str__(self) -> str:
        return f"tp={self.tp},pp={self.pp} on {self.gpu}"


@dataclass(frozen=True, slots=True)
class Placement:
    """All instances of a plan on their nodes."""

    layout: Layout
    instances: Sequence[InstancePlan]

    @property
    def gpus(self) -> int:
        """How many GPUs they take."""
        return sum(instance.gpus for instance in self.instances)

    def count(self, role: Role) -> int:
        """How many instances have this role."""
        return sum(1 for instance in self.instances if instance.role == role)

    def shapes(self) -> Counter[Shape]:
        """How many instances there are of each shape."""
        return Counter(
            Shape(each.role, each.gpu, each.tp, each.pp, each.max_batch_tokens, each.max_batch_seqs)
            for each in self.instances
        )
