"""Instances that live and report, and to or from which no hand-off gets through."""

from collections.abc import Set

from pdserve.rpc.v1 import router_pb2
from services.router.breakers import Breakers, Pair
from services.router.fleet import Fleet
from services.router.placement.eligible import mismatch
from services.router.view import FleetView

DETAIL = "every hand-off fails"


def instance_statuses(fleet: Fleet, breakers: Breakers) -> list[router_pb2.InstanceStatus]:
    """Every instance, in the order of discovery; the detail tells of those that are cut off."""
    statuses = fleet.status()
    alone = cut_off(fleet.view(), breakers.open_pairs())
    for status in statuses:
        if status.report.info.incarnation in alone:
            status.detail = DETAIL
    return statuses


def cut_off(view: FleetView, open_pairs: Set[Pair]) -> set[str]:
    """Incarnations that take requests and could hand KV over, but for breakers that are open."""
    if not open_pairs:
        return set()
    usable = [
        (prefill.incarnation, decode.incarnation)
        for prefill in view.prefill
        for decode in view.decode
        if not mismatch(prefill.layout, decode.layout)
    ]
    reached = {each for pair in usable if pair not in open_pairs for each in pair}
    return {each for pair in usable for each in pair} - reached
