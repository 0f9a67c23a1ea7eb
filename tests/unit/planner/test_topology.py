"""Which links KV crosses, seen through how long a lone transfer takes."""

import numpy as np
import pytest

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import InstancePlan, Placement, Role, Stage
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.planner.topology import links_of
from pdserve.workload.workload import Workload

H100 = find_gpu("h100")
COST = InstanceCost(
    2, 1, PrefillCost(0.1, 0, 0), DecodeCost(0.01, 0, 0), DecodeCost(0.01, 0, 0), 1, 10_000
)
KV_BYTES = 1e6
PROMPT = 1000
GIGABYTE = PROMPT * KV_BYTES

NODES = [
    Node("a", H100, 8, 50e9, rack="r1", zone="z1"),
    Node("b", H100, 8, 50e9, rack="r1", zone="z1"),
    Node("c", H100, 8, 50e9, rack="r2", zone="z1"),
    Node("d", H100, 8, 50e9, rack="r3", zone="z2"),
]


def placed(role: Role, node: str, first: int) -> InstancePlan:
    stage = Stage(node, (first, first + 1))
    return InstancePlan(f"{role}-{node}", role, H100.name, 2, 1, 2048, 256, (stage,))


@pytest.mark.parametrize(
    ("to", "bytes_per_s"),
    [
        ("a", 2 * H100.link_bytes_per_s),  # the ports of both ranks
        ("b", 50e9),  # the network cards
        ("c", 20e9),  # the rack's uplink
        ("d", 10e9),  # the zone's uplink
    ],
)
def test_a_transfer_is_as_fast_as_the_narrowest_link_on_its_way(
    to: str, bytes_per_s: float
) -> None:
    cluster = Cluster(NODES, {"r1": 20e9}, {"z1": 10e9}, link_latency_s=0.0)
    placement = Placement("apart", [placed("prefill", "a", 0), placed("decode", to, 4)])
    links, names = links_of(placement, cluster)
    assert len(names) == len(links.bytes_per_s)
    deployment = Deployment(
        [SimulatedInstance("prefill", COST), SimulatedInstance("decode", COST)],
        links,
        KV_BYTES,
        layer_groups=1,
    )
    one = Workload("one", np.zeros(1), np.array([PROMPT]), np.array([2]))
    result = simulate(deployment, one, Slo())
    # All layers leave together, after the pass.
    assert result.handoff_s[0] == pytest.approx(GIGABYTE / bytes_per_s)


def test_stages_on_several_nodes_send_from_all_their_cards() -> None:
    cluster = Cluster(NODES, link_latency_s=0.0)
    spanning = InstancePlan(
        "prefill-0", "prefill", H100.name, 2, 2, 2048, 256, (Stage("a", (0, 1)), Stage("b", (0, 1)))
    )
    links, names = links_of(Placement("apart", [spanning, placed("decode", "c", 0)]), cluster)
    assert links.bytes_per_s[names.index("network out of a+b")] == 100e9
