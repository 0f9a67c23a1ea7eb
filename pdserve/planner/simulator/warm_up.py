"""Compiles the simulator before it is needed, and tells whether that would take long."""

import math

import numpy as np

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.planner.simulator.compiled import cache_folder
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

_COST = InstanceCost(
    1, 1, PrefillCost(1.0, 0.0, 0.0), DecodeCost(1.0, 0, 0), DecodeCost(1.0, 0, 0), 1, 1024
)


def is_warm() -> bool:
    """Whether this machine has compiled this version of the simulator before."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob("kernel.run*.nbi"))


def warm_up() -> None:
    """Compiles the simulator, or loads what was compiled; the first time takes half a minute."""
    instances = [SimulatedInstance("prefill", _COST), SimulatedInstance("decode", _COST)]
    one = np.ones(1, np.int64)
    workload = Workload("warm-up", np.zeros(1), one, one)
    simulate(Deployment(instances, separate_links(2, math.inf), 1.0), workload, Slo())
