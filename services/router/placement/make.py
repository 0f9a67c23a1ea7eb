"""The placer that the configuration asks for."""

import random

from pdserve.config import RouterConfig
from services.router.knowledge import Knowledge
from services.router.placement.least_load import LeastLoad
from services.router.placement.predictive import Predictive
from services.router.placement.random_order import RandomOrder
from services.router.placement.ranked import RankedPlacer
from services.router.placement.round_robin import RoundRobin
from services.router.placer import OpenPairs, Placer


def make_placer(config: RouterConfig, knowledge: Knowledge, open_pairs: OpenPairs) -> Placer:
    """The placer that the options `placer` and `colocated` name.

    Colocated instances have nothing to hand over: they are chosen by load, or as the option says.
    """
    lot = random.Random()
    match config.placer:
        case "round_robin":
            return RankedPlacer(RoundRobin(), open_pairs, colocated=config.colocated)
        case "random":
            return RankedPlacer(RandomOrder(lot), open_pairs, colocated=config.colocated)
        case "predictive" if not config.colocated:
            return Predictive(knowledge, open_pairs, lot)
        case _:
            return RankedPlacer(LeastLoad(), open_pairs, colocated=config.colocated)
