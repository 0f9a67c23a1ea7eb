"""Where instances go: onto named nodes, so that KV has the shortest way.

Every node gets prefill and decode in the proportion of the whole plan, as far as they fit: most KV
then crosses nothing but the node's own links. Instances of several stages take neighbouring nodes
where one is too small, and units of paired stages take nodes of their own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pdserve.errors import ConfigError
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import ANYWHERE, InstancePlan, Layout, Placement, Shape, Stage


@dataclass(slots=True)
class _Room:
    """A node and which of its GPUs are free."""

    node: Node
    free: list[int] = field(default_factory=list)

    def take(self, count: int) -> Stage:
        """The first free GPUs, which are no longer free."""
        taken, self.free = tuple(self.free[:count]), self.free[count:]
        return Stage(self.node.name, taken)


class Placer:
    """Puts instances onto the nodes of a cluster, and names them."""

    def __init__(self, cluster: Cluster) -> None:
        nodes = sorted(cluster.nodes, key=lambda node: (node.zone, node.rack))
        self._rooms = [_Room(node, list(range(node.gpus))) for node in nodes]
        self._placed: list[InstancePlan] = []
        self._numbers: dict[str, int] = {}

    def spread(self, wanted: Sequence[tuple[Shape, int]]) -> None:
        """Places so many instances of each shape; `ConfigError` where one finds no room."""
        whole = [(shape, count) for shape, count in wanted if self._spans_nodes(shape)]
        for shape, count in sorted(whole, key=lambda each: -each[0].gpus):
            for _ in range(count):
                self._add(shape, self._neighbours(shape), ANYWHERE)
        left = {shape: count for shape, count in wanted if not self._spans_nodes(shape)}
        totals = dict(left)
        for room in self._rooms:
            while (behind := self._most_behind(room, left, totals)) is not None:
                left[behind] -= 1
                self._add(behind, [room.take(behind.tp) for _ in range(behind.pp)], ANYWHERE)
        missing = next((shape for shape, count in left.items() if count), None)
        if missing is not None:
            raise ConfigError(
                f"{left[missing]} {missing.role} instances of {missing} find no node with "
                f"{missing.gpus} free GPUs",
                field="cluster",
            )

    def unit(self, shapes: Sequence[Shape], group: int) -> None:
        """Places a unit: stage `k` of all its instances on the same node, for every `k`."""
        stages = shapes[0].pp
        width = sum(shape.tp for shape in shapes)
        rooms = [
            room
            for room in self._rooms
            if room.node.gpu.name == shapes[0].gpu and len(room.free) >= width
        ][:stages]
        if len(rooms) < stages:
            raise ConfigError(
                f"a unit needs {stages} nodes with {width} free {shapes[0].gpu} each",
                field="cluster",
            )
        for shape in shapes:
            self._add(shape, [room.take(shape.tp) for room in rooms], group)

    def placement(self, layout: Layout) -> Placement:
        """All that was placed."""
        return Placement(layout, tuple(self._placed))

    def _spans_nodes(self, shape: Shape) -> bool:
        largest = max(
            (room.node.gpus for room in self._rooms if room.node.gpu.name == shape.gpu), default=0
        )
        return shape.gpus > largest

    def _neighbours(self, shape: Shape) -> list[Stage]:
        """The first nodes, one after another, that take the stages of one instance."""
        stages: list[Stage] = []
        for room in self._rooms:
            while room.node.gpu.name == shape.gpu and len(room.free) >= shape.tp:
                stages.append(room.take(shape.tp))
                if len(stages) == shape.pp:
                    return stages
        raise ConfigError(
            f"an instance of {shape} finds only {len(stages)} of {shape.pp} places for its stages",
            field="cluster",
        )

    def _most_behind(
        self, room: _Room, left: dict[Shape, int], totals: dict[Shape, int]
    ) -> Shape | None:
        """Of the shapes that fit here, the one of which the largest share is still to be placed."""
        fitting = [
            shape
            for shape, count in left.items()
            if count and shape.gpu == room.node.gpu.name and shape.gpus <= len(room.free)
        ]
        # At a tie the larger one, while there is room for it.
        return max(
            fitting, key=lambda shape: (left[shape] / totals[shape], shape.gpus), default=None
        )

    def _add(self, shape: Shape, stages: Iterable[Stage], group: int) -> None:
        number = self._numbers.get(shape.role, 0)
        self._numbers[shape.role] = number + 1
        name = "instance" if shape.role == "both" else shape.role
        self._placed.append(
            InstancePlan(
                name=f"{name}-{number}",
                role=shape.role,
                gpu=shape.gpu,
                tp=shape.tp,
                pp=shape.pp,
                max_batch_tokens=shape.max_batch_tokens,
                max_batch_seqs=shape.max_batch_seqs,
                stages=tuple(stages),
                group=group,
            )
        )
