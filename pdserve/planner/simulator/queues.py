"""The queue of each instance: first come, first served, also those that were preempted."""

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import NOBODY, World


@compiled
def enqueue(w: World, i: int, r: int) -> None:
    """Request `r` waits at the end of instance `i`'s queue."""
    instance = w.instances[i]
    instance.turns += 1
    w.requests[r].turn = instance.turns
    w.requests[r].behind = NOBODY
    if instance.queued:
        w.requests[instance.queue_tail].behind = r
    else:
        instance.queue_head = r
    instance.queue_tail = r
    instance.queued += 1


@compiled
def put_back(w: World, i: int, r: int) -> None:
    """Request `r`, which left instance `i`'s queue, waits in it again, by its turn."""
    instance, request = w.instances[i], w.requests[r]
    before, after = NOBODY, instance.queue_head if instance.queued else NOBODY
    while after != NOBODY and w.requests[after].turn < request.turn:
        before, after = after, w.requests[after].behind
    request.behind = after
    if before == NOBODY:
        instance.queue_head = r
    else:
        w.requests[before].behind = r
    if after == NOBODY:
        instance.queue_tail = r
    instance.queued += 1


@compiled
def dequeue(w: World, i: int) -> int:
    """Takes the request at the head of instance `i`'s queue, which must not be empty."""
    instance = w.instances[i]
    r = instance.queue_head
    instance.queue_head = w.requests[r].behind
    instance.queued -= 1
    return r
