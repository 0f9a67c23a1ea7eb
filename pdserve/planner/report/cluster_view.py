"""The placement as cards: a node each, or a kind of node each where there are many."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import InstancePlan, Placement
from pdserve.planner.report.formats import bandwidth
from pdserve.planner.report.names import ROLE_NAMES, short_name

# With more nodes than this, those that look alike share a card and all are drawn small.
MOST_CARDS = 24
_FREE = "free"


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring GPUs of one pipeline stage, or free ones; `shade` tells neighbours apart."""

    role: str
    label: str
    detail: str
    title: str
    span: int
    shade: int
    unit: int


@dataclass(frozen=True, slots=True)
class Card:
    """A node, or `count` nodes that look alike."""

    title: str
    detail: str
    count: int
    gpus: int
    blocks: tuple[Block, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cards, and all nodes by rack where cards stand for several."""

    cards: tuple[Card, ...]
    racks: tuple[tuple[str, tuple[Card, ...]], ...]


def view_nodes(cluster: Cluster, placement: Placement) -> ClusterView:
    """How a plan's instances lie on the nodes."""
    at = _stages(placement.instances)
    paired = placement.layout == "paired"
    nodes = sorted(cluster.nodes, key=lambda node: (node.zone, node.rack))
    cards = [
        Card(node.name, _about(node), 1, node.gpus, _blocks(node, at, paired), (node.name,))
        for node in nodes
    ]
    if len(cards) <= MOST_CARDS:
        return ClusterView(tuple(cards), ())
    return ClusterView(_alike(cards), _by_rack(nodes, cards))


def _stages(instances: Sequence[InstancePlan]) -> dict[tuple[str, int], tuple[InstancePlan, int]]:
    """The instance and its stage, by node and GPU."""
    return {
        (stage.node, gpu): (instance, number)
        for instance in instances
        for number, stage in enumerate(instance.stages)
        for gpu in stage.gpus
    }


def _about(node: Node) -> str:
    parts = [f"{node.gpus} × {node.gpu.name}", bandwidth(node.network_bytes_per_s)]
    place = " / ".join(part for part in (node.zone, node.rack) if part)
    return " · ".join([*parts, place] if place else parts)


def _blocks(
    node: Node, at: dict[tuple[str, int], tuple[InstancePlan, int]], paired: bool
) -> tuple[Block, ...]:
    blocks: list[Block] = []
    last: InstancePlan | None = None
    begin = shade = 0
    while begin < node.gpus:
        held = at.get((node.name, begin))
        end = begin + 1
        while end < node.gpus and at.get((node.name, end)) == held:
            end += 1
        if held is not None and held[0] is not last:
            shade = 1 - shade if last is not None and held[0].role == last.role else 0
            last = held[0]
        blocks.append(_block(held, begin, end, shade, paired))
        begin = end
    return tuple(blocks)


def _block(
    held: tuple[InstancePlan, int] | None, begin: int, end: int, shade: int, paired: bool
) -> Block:
    gpus = f"GPU {begin}" if end == begin + 1 else f"GPUs {begin}–{end - 1}"
    if held is None:
        return Block(_FREE, "", "", f"{gpus}: free", end - begin, 0, 0)
    instance, stage = held
    detail = f"stage {stage + 1}/{instance.pp}" if instance.pp > 1 else ""
    title = (
        f"{gpus}: {instance.name} ({ROLE_NAMES[instance.role]}), tp={instance.tp}, "
        f"pp={instance.pp}" + (f", {detail}" if detail else "")
    )
    unit = instance.group if paired else 0
    return Block(instance.role, short_name(instance), detail, title, end - begin, shade, unit)


def _alike(cards: Sequence[Card]) -> tuple[Card, ...]:
    """One card for all nodes with the same kinds of stages, the most frequent first."""
    groups = defaultdict[tuple[object, ...], list[Card]](list)
    for card in cards:
        kinds = tuple((block.role, block.detail, block.span) for block in card.blocks)
        groups[(card.detail.split(" · ")[0], kinds)].append(card)
    result = []
    for alike in sorted(groups.values(), key=lambda group: -len(group)):
        first = alike[0]
        names = tuple(card.title for card in alike)
        title = f"{len(alike)} nodes" if len(alike) > 1 else first.title
        blocks = first.blocks if len(alike) == 1 else tuple(map(_anonymous, first.blocks))
        detail = first.detail if len(alike) == 1 else " · ".join(first.detail.split(" · ")[:2])
        result.append(Card(title, detail, len(alike), first.gpus, blocks, names))
    return tuple(result)


def _anonymous(block: Block) -> Block:
    """A block that stands for those of many instances."""
    label = next((name for role, name in ROLE_NAMES.items() if role == block.role), "")
    title = block.title.partition(": ")[0] + f": {label or _FREE}"
    return Block(block.role, label, block.detail, title, block.span, block.shade, 0)


def _by_rack(
    nodes: Sequence[Node], cards: Sequence[Card]
) -> tuple[tuple[str, tuple[Card, ...]], ...]:
    racks = defaultdict[str, list[Card]](list)
    for node, card in zip(nodes, cards, strict=True):
        racks[" / ".join(part for part in (node.zone, node.rack) if part)].append(card)
    return tuple((name, tuple(inside)) for name, inside in racks.items())
