"""The links between instances, for people and tools."""

from pdserve.rpc.v1 import router_pb2
from services.router.breakers import Breakers, BreakerState
from services.router.fleet import Fleet
from services.router.links import Links, LinkState

# More than anyone reads; a large fleet has tens of thousands.
_MOST = 1024


def link_statuses(fleet: Fleet, links: Links, breakers: Breakers) -> list[router_pb2.LinkStatus]:
    """Pairs over which KV has moved, and first of all those that must not be used now."""
    names = {each.incarnation: each.name for each in fleet.instances()}
    broken = {pair for pair in breakers.open_pairs() if names.keys() >= set(pair)}
    states = [links.state(*pair) for pair in sorted(broken)]
    states += [each for each in links.states(_MOST) if (each.prefill, each.decode) not in broken]
    return [_status(each, names, breakers.state(each.prefill, each.decode)) for each in states]


def _status(
    state: LinkState, names: dict[str, str], breaker: BreakerState
) -> router_pb2.LinkStatus:
    return router_pb2.LinkStatus(
        prefill=names.get(state.prefill, state.prefill),
        decode=names.get(state.decode, state.decode),
        distance=state.distance,
        bandwidth_bytes_per_s=state.bytes_per_s,
        transfers=state.transfers,
        age_s=state.age_s,
        breaker=breaker,
    )
