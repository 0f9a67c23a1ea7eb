"""Instances on nodes: everything has its GPUs, nobody shares one, and phases are mixed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.placement import Placer
from pdserve.planner.plan import Role, Shape

H100, L4 = find_gpu("h100"), find_gpu("l4")


def cluster(nodes: int, gpus: int = 8) -> Cluster:
    return Cluster([Node(f"node-{k}", H100, gpus, 50e9) for k in range(nodes)])


def shape(role: Role, tp: int, pp: int = 1, gpu: str = H100.name) -> Shape:
    return Shape(role, gpu, tp, pp, 2048, 256)


@given(
    nodes=st.integers(1, 6),
    wanted=st.lists(
        st.tuples(
            st.sampled_from(["prefill", "decode"]),
            st.sampled_from([1, 2, 4, 8]),
            st.sampled_from([1, 2, 4]),
            st.integers(1, 6),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda each: each[:3],
    ),
)
def test_powers_of_two_always_pack_and_no_gpu_is_given_twice(
    nodes: int, wanted: list[tuple[Role, int, int, int]]
) -> None:
    shapes = [(shape(role, tp, pp), count) for role, tp, pp, count in wanted]
    needed = sum(each.gpus * count for each, count in shapes)
    placer = Placer(cluster(nodes))
    if needed > nodes * 8:
        with pytest.raises(ConfigError):
            placer.spread(shapes)
        return
    placer.spread(shapes)
    placed = placer.placement("apart")
    assert placed.shapes() == Counter(dict(shapes))
    used = [
        (stage.node, gpu)
        for each in placed.instances
        for stage in each.stages
        for gpu in stage.gpus
    ]
    assert len(used) == len(set(used)) == needed
    assert all(0 <= gpu < 8 for _, gpu in used)
    for each in placed.instances:
        assert len(each.stages) == each.pp
        assert all(len(stage.gpus) == each.tp for stage in each.stages)


def test_each_node_gets_both_phases_in_the_proportion_of_the_plan() -> None:
    placer = Placer(cluster(4))
    placer.spread([(shape("prefill", 2), 12), (shape("decode", 2), 4)])
    by_node = Counter(
        (each.stages[0].node, each.role) for each in placer.placement("apart").instances
    )
    assert set(by_node.values()) == {3, 1}
    assert all(by_node[f"node-{k}", "prefill"] == 3 for k in range(4))


def test_an_instance_that_fits_a_node_is_not_spread_over_two() -> None:
    placer = Placer(cluster(2))
    placer.spread([(shape("prefill", 4, 2), 1), (shape("decode", 2), 4)])
    assert all(len(set(each.nodes)) == 1 for each in placer.placement("apart").instances)


def test_a_unit_keeps_each_stage_of_both_phases_on_one_node() -> None:
    placer = Placer(cluster(4))
    placer.unit([shape("prefill", 4, 2), shape("decode", 2, 2), shape("decode", 2, 2)], group=1)
    placer.unit([shape("prefill", 4, 2), shape("decode", 4, 2)], group=2)
    instances = placer.placement("paired").instances
    for group in (1, 2):
        assert len({each.nodes for each in instances if each.group == group}) == 1
    assert len({stage.node for each in instances for stage in each.stages}) == 4


def test_what_finds_no_room_is_named() -> None:
    with pytest.raises(ConfigError, match="decode"):
        Placer(cluster(1, gpus=2)).spread([(shape("decode", 2), 2)])
    with pytest.raises(ConfigError, match="2 nodes with 8 free"):
        Placer(cluster(1)).unit([shape("prefill", 4, 2), shape("decode", 4, 2)], group=1)


def test_instances_go_to_nodes_with_their_kind_of_gpu() -> None:
    mixed = Cluster([Node("big", H100, 8, 50e9), Node("small", L4, 4, 10e9)])
    placer = Placer(mixed)
    placer.spread([(shape("prefill", 4), 1), (shape("decode", 2, gpu=L4.name), 2)])
    where = {each.role: each.stages[0].node for each in placer.placement("apart").instances}
    assert where == {"prefill": "big", "decode": "small"}


def test_odds_and_ends_leave_no_gap_that_a_larger_instance_needed() -> None:
    placer = Placer(cluster(4))
    placer.spread([(shape("prefill", 2), 2), (shape("prefill", 1), 8), (shape("decode", 2), 10)])
    assert placer.placement("apart").gpus == 32
