"""A request's KV on its way from prefill to decode.

Decode pulls: once it has blocks for a request the transfer begins, while prefill may still compute.
Layer groups leave as they are done; the last one can only leave after the pass, so that at least
`Run.tail` of the bytes, and the latency, come after the first token.
"""

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.events import LANDED, Event, push
from pdserve.planner.simulator.network import pair_rate, start_transfer
from pdserve.planner.simulator.state import World


@compiled
def admit_pull(w: World, events: list[Event], d: int, r: int, shared: int, now: float) -> None:
    """Request `r` has its place on decode instance `d`: its KV may come, but what is shared."""
    request = w.requests[r]
    request.admitted_s = now
    request.shared = shared
    w.instances[d].loading += 1
    if start_transfer(w, events, now, r, request.prefill_on, d, _bytes(w, r)):
        through(w, events, r, now)


@compiled
def through(w: World, events: list[Event], r: int, now: float) -> None:
    """All bytes of request `r` that could leave so far have arrived."""
    request = w.requests[r]
    request.drained = True
    if request.first_s <= now:  # not while it is NaN
        land(w, events, r, now)


@compiled
def land(w: World, events: list[Event], r: int, now: float) -> None:
    """Prompt and bytes of request `r` are done; its last layers follow."""
    request, run = w.requests[r], w.run[0]
    rate = pair_rate(w, request.prefill_on, request.decode_on, 1)
    last = max(now, request.first_s + run.tail * _bytes(w, r) / rate)
    push(w, events, last + run.link_latency_s, LANDED, r, 0)


@compiled
def _bytes(w: World, r: int) -> float:
    request = w.requests[r]
    return (request.prompt - request.shared) * w.run[0].kv_bytes
