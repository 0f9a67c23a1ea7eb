"""Tables, links, policies and deployments: what the simulation is put together from."""

from dataclasses import astuple, dataclass, field

import numpy as np
import pytest

from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.planner.simulator.links import LinkTable, separate_links
from pdserve.planner.simulator.policy import POLICIES, SARATHI, find_policy
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance
from pdserve.planner.simulator.tables import new_table, record_type

LINE = DecodeCost(1e-3, 0.0, 0.0)
COST = InstanceCost(2, 3, PrefillCost(1e-3, 0.0, 0.0), LINE, LINE, 1, 1000)


@dataclass(slots=True)
class Inner:
    share: float
    count: int


@dataclass(slots=True)
class Outer:
    inner: Inner
    on: bool
    ends: np.ndarray = field(metadata={"shape": 3})


def test_a_record_has_the_fields_of_its_dataclass():
    kind = record_type(Outer)
    assert kind.names == ("inner", "on", "ends")
    assert kind["inner"].names == ("share", "count")
    assert kind["inner"]["share"] == np.float64
    assert kind["inner"]["count"] == np.int64
    assert kind["on"] == np.bool_
    assert kind["ends"].shape == (3,)


def test_a_row_of_a_table_is_a_view_and_begins_as_zeros():
    table = new_table(Outer, 2)
    assert not table["inner"]["count"].any()
    table[1]["inner"] = astuple(Inner(0.5, 7))
    table[1]["ends"] = [1, 2, 3]
    assert table["inner"]["count"].tolist() == [0, 7]
    assert table["ends"][1].tolist() == [1, 2, 3]
    assert len(table) == 2


def test_separate_instances_share_no_link_and_no_node():
    links = separate_links(3, 5.0, latency_s=0.25)
    assert links.bytes_per_s.tolist() == [5.0] * 6
    assert len({*links.outward[:, 1], *links.inward[:, 1]}) == 6
    assert links.place[:, 0].tolist() == [0, 1, 2]
    assert not links.place[:, 1:].any()
    assert links.latency_s == 0.25


def test_a_link_described_twice_is_one_link():
    table = LinkTable()
    card, rack = table.link("card", 10.0), table.link("rack", 40.0)
    assert table.link("card", 10.0) == card != rack
    ends = [[card, card, rack, rack]] * 2
    links = table.links(ends, ends, [[0, 0, 0], [1, 0, 0]], 1e-3)
    assert links.bytes_per_s.tolist() == [10.0, 40.0]
    assert links.outward.shape == links.inward.shape == (2, 4)
    assert links.place.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert table.names == ["card", "rack"]


def test_policies_are_found_by_name():
    assert find_policy("sarathi") is SARATHI
    assert all(find_policy(name) is policy for name, policy in POLICIES.items())


def test_an_unknown_policy_is_named_with_those_that_are_known():
    with pytest.raises(ConfigError, match=r"'fifo'.*pdserve, distserve, vllm, sarathi") as caught:
        find_policy("fifo")
    assert caught.value.field == "policy"


@pytest.mark.parametrize(
    ("roles", "groups", "text", "name"),
    [
        ([], [], "at least one instance", "instances"),
        (["prefill"], [0], "group 0 have no decode instance", "decode"),
        (["prefill", "decode"], [1, 0], "group 1 have no decode instance", "decode"),
        (["decode"], [0], "no instance prefills", "prefill"),
    ],
)
def test_a_deployment_that_cannot_serve_says_what_is_missing(roles, groups, text, name):
    instances = [
        SimulatedInstance(role, COST, group=group)
        for role, group in zip(roles, groups, strict=True)
    ]
    with pytest.raises(ConfigError, match=text) as caught:
        Deployment(instances, separate_links(len(instances), 1.0), 1.0)
    assert caught.value.field == name


def test_a_deployment_counts_the_gpus_of_all_ranks():
    instances = [SimulatedInstance("both", COST)] * 2
    assert Deployment(instances, separate_links(2, 1.0), 1.0).gpus == 12
