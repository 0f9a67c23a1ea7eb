"""The links that a placement's KV crosses."""

from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import InstancePlan, Placement
from pdserve.planner.simulator.links import Links, LinkTable

_UNLIMITED = float("inf")


def links_of(placement: Placement, cluster: Cluster) -> tuple[Links, list[str]]:
    """The links between the instances of a placement, in their order, and the links' names.

    An instance's ports are those of all its ranks. An instance that spans several nodes sends its
    KV from all of them at once: it has the network cards of all, and they are counted as its own.
    """
    table = LinkTable()
    nodes = {node.name: node for node in cluster.nodes}
    outward, inward, place = [], [], []
    places: dict[tuple[str, ...], int] = {}
    racks: dict[str, int] = {}
    zones: dict[str, int] = {}
    for instance in placement.instances:
        spanned = sorted(set(instance.nodes))
        first = nodes[spanned[0]]
        cards = sum(nodes[name].network_bytes_per_s for name in spanned)
        outward.append(_ends(table, instance, first, cluster, cards, "out of"))
        inward.append(_ends(table, instance, first, cluster, cards, "into"))
        place.append(
            (
                places.setdefault(tuple(spanned), len(places)),
                racks.setdefault(f"{first.zone}/{first.rack}", len(racks)),
                zones.setdefault(first.zone, len(zones)),
            )
        )
    return table.links(outward, inward, place, cluster.link_latency_s), table.names


def _ends(
    table: LinkTable,
    instance: InstancePlan,
    node: Node,
    cluster: Cluster,
    cards: float,
    way: str,
) -> tuple[int, int, int, int]:
    ports = node.gpu.link_bytes_per_s * instance.gpus
    nodes = "+".join(sorted(set(instance.nodes)))
    rack = f"rack {node.rack}" if node.rack else "rack"
    zone = f"zone {node.zone}" if node.zone else "zone"
    return (
        table.link(f"ports {way} {instance.name}", ports),
        table.link(f"network {way} {nodes}", cards),
        table.link(f"uplink {way} {rack}", cluster.rack_uplinks.get(node.rack, _UNLIMITED)),
        table.link(f"uplink {way} {zone}", cluster.zone_uplinks.get(node.zone, _UNLIMITED)),
    )
