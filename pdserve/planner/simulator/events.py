"""What is going to happen: a heap of (time, order, kind, subject, stamp)."""

import heapq

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import World

Event = tuple[float, int, int, int, int]

# The subject is an instance. Its step ends, unless `stamp` is not the instance's any more.
STEP_END = 0
# The subject is a request.
SAMPLED = 1  # a prompt is computed to its end, and the next token with it
BIND = 2  # prefill has begun: a decode instance is chosen
LANDED = 3  # its KV is on the decode instance
# No subject. The first of the transfers under way is through, unless `stamp` is out of date.
DRAINED = 4


@compiled
def push(w: World, events: list[Event], time: float, kind: int, subject: int, stamp: int) -> None:
    """Adds an event; among those of one time the first added comes first."""
    run = w.run[0]
    run.order += 1
    heapq.heappush(events, (time, run.order, kind, subject, stamp))
