"""KV on its way: transfers that share links.

A transfer crosses the links between its two instances: within a node the ports of both, else the
network cards of both nodes, and the uplinks of racks and zones that it leaves. Each link is shared
evenly by the transfers on it, and a transfer goes as fast as the narrowest of its shares.
"""

import math

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.events import DRAINED, Event, push
from pdserve.planner.simulator.state import NOBODY, World


@compiled
def pair_rate(w: World, p: int, d: int, more: int) -> float:
    """Bytes per second from `p` to `d` with `more` transfers on each link than there are now."""
    first, end = _levels(w, p, d)
    source, sink = w.instances[p], w.instances[d]
    rate = math.inf
    for level in range(first, end):
        out, into = w.links[source.outward[level]], w.links[sink.inward[level]]
        rate = min(rate, out.bytes_per_s / max(1, out.transfers + more))
        rate = min(rate, into.bytes_per_s / max(1, into.transfers + more))
    return rate


@compiled
def start_transfer(
    w: World, events: list[Event], now: float, r: int, p: int, d: int, size: float
) -> bool:
    """Begins to move `size` bytes of request `r` from `p` to `d`; True where it takes no time."""
    run = w.run[0]
    _count_bytes(w, p, d, size)
    if size <= 0.0 or math.isinf(pair_rate(w, p, d, 1)):
        return True
    _advance(w, now)
    transfer = w.transfers[run.transfers]
    run.transfers += 1
    transfer.request = r
    transfer.source = p
    transfer.sink = d
    transfer.left_bytes = size
    _put_on_links(w, p, d, 1)
    _schedule(w, events, now)
    return False


@compiled
def take_drained(w: World, events: list[Event], now: float) -> int:
    """A request whose bytes are all through, which is forgotten here; `NOBODY` if none is."""
    run = w.run[0]
    _advance(w, now)
    for k in range(run.transfers):
        transfer = w.transfers[k]
        # Less than what the rounding of the clock may leave.
        if transfer.left_bytes <= transfer.rate * 1e-9 * max(1.0, now):
            r = transfer.request
            _put_on_links(w, transfer.source, transfer.sink, -1)
            run.transfers -= 1
            last = w.transfers[run.transfers]
            transfer.request = last.request
            transfer.source = last.source
            transfer.sink = last.sink
            transfer.left_bytes = last.left_bytes
            transfer.rate = last.rate
            return r
    _schedule(w, events, now)
    return NOBODY


@compiled
def _levels(w: World, p: int, d: int) -> tuple[int, int]:
    """The levels of links that a transfer from `p` to `d` crosses: the first, and past the last."""
    here, there = w.instances[p].place, w.instances[d].place
    if here[0] == there[0]:
        return 0, 1
    if here[1] == there[1]:
        return 1, 2
    if here[2] == there[2]:
        return 1, 3
    return 1, 4


@compiled
def _put_on_links(w: World, p: int, d: int, change: int) -> None:
    first, end = _levels(w, p, d)
    for level in range(first, end):
        w.links[w.instances[p].outward[level]].transfers += change
        w.links[w.instances[d].inward[level]].transfers += change


@compiled
def _count_bytes(w: World, p: int, d: int, size: float) -> None:
    first, end = _levels(w, p, d)
    for level in range(first, end):
        w.links[w.instances[p].outward[level]].sent_bytes += size
        w.links[w.instances[d].inward[level]].sent_bytes += size


@compiled
def _advance(w: World, now: float) -> None:
    run = w.run[0]
    elapsed = now - run.transfers_at_s
    run.transfers_at_s = now
    if elapsed > 0.0:
        for k in range(run.transfers):
            transfer = w.transfers[k]
            transfer.left_bytes -= transfer.rate * elapsed


@compiled
def _schedule(w: World, events: list[Event], now: float) -> None:
    """Gives every transfer its rate, and announces which ends first."""
    run = w.run[0]
    run.transfers_stamp += 1
    soonest = math.inf
    for k in range(run.transfers):
        transfer = w.transfers[k]
        transfer.rate = pair_rate(w, transfer.source, transfer.sink, 0)
        soonest = min(soonest, max(0.0, transfer.left_bytes) / transfer.rate)
    if run.transfers:
        push(w, events, now + soonest, DRAINED, NOBODY, run.transfers_stamp)
