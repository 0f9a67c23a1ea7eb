"""The queue of each instance: first come, first served, a preempted sequence before all others."""

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import NOBODY, World


@compiled
def enqueue(w: World, i: int, r: int) -> None:
    """Request `r` waits at the end of instance `i`'s queue."""
    instance = w.instances[i]
    w.requests[r].behind = NOBODY
    if instance.queued:
        w.requests[instance.queue_tail].behind = r
    else:
        instance.queue_head = r
    instance.queue_tail = r
    instance.queued += 1


@compiled
def put_back(w: World, i: int, r: int) -> None:
    """Request `r` waits at the head of instance `i`'s queue."""
    instance = w.instances[i]
    if instance.queued:
        w.requests[r].behind = instance.queue_head
    else:
        instance.queue_tail = r
    instance.queue_head = r
    instance.queued += 1


@compiled
def dequeue(w: World, i: int) -> int:
    """Takes the request at the head of instance `i`'s queue, which must not be empty."""
    instance = w.instances[i]
    r = instance.queue_head
    instance.queue_head = w.requests[r].behind
    instance.queued -= 1
    return r
