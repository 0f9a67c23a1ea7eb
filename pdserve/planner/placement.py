"""Where instances go: onto named nodes, so that KV has the shortest way.

Every node gets prefill and decode in the proportion of the whole plan, as far as they fit: most KV
then crosses nothing but the node's own links. Instances of several stages take neighbouring nodes
where one is too small, and units of paired stages take nodes of their own.
"""

from collections import Counter
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
        within = [(shape, count) for shape, count in wanted if not self._spans_nodes(shape)]
        for kind in sorted({shape.gpu for shape, _ in within}):
            queue = _in_turn([each for each in within if each[0].gpu == kind])
            rooms = [room for room in self._rooms if room.node.gpu.name == kind]
            for shape, room in _dealt(queue, rooms):
                self._add(shape, [room.take(shape.tp) for _ in range(shape.pp)], ANYWHERE)

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


def _in_turn(wanted: Sequence[tuple[Shape, int]]) -> list[Shape]:
    """Every instance, the largest first, those of one size in the proportion of their counts."""
    turns = [
        (-shape.gpus, (number + 0.5) / count, shape)
        for shape, count in wanted
        for number in range(count)
    ]
    return [shape for *_, shape in sorted(turns, key=lambda turn: turn[:2])]


def _dealt(queue: Sequence[Shape], rooms: Sequence[_Room]) -> list[tuple[Shape, _Room]]:
    """Which node each instance goes to, on the fewest nodes on which all of them find room.

    Each goes to the emptiest node, at a tie to the one with the least of its role. With the largest
    first, sizes that divide each other leave no gaps.
    """
    size = max((len(room.free) for room in rooms), default=0)
    total = sum(shape.gpus for shape in queue)
    for count in range(min(len(rooms), -(-total // max(1, size))), len(rooms) + 1):
        free = [len(room.free) for room in rooms[:count]]
        roles: list[Counter[str]] = [Counter() for _ in free]
        dealt: list[tuple[Shape, _Room]] = []
        for shape in queue:
            k = max(range(count), key=lambda k: (free[k], -roles[k][shape.role]))
            if free[k] < shape.gpus:
                break
            free[k] -= shape.gpus
            roles[k][shape.role] += shape.gpus
            dealt.append((shape, rooms[k]))
        if len(dealt) == len(queue):
            return dealt
    raise ConfigError(
        f"{queue[len(dealt)].role} instance {len(dealt) + 1} of {len(queue)}, "
        f"{queue[len(dealt)]}, finds no node with {queue[len(dealt)].gpus} free GPUs",
        field="cluster",
    )
