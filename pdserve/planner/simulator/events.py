"""What is going to happen: a heap of (time, order, kind, subject, stamp)."""

import heapq

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import World

Event = tuple[float, int, int, int, int]

# The subject is an instance. Its step ends, unless `stamp` is not the instance's any more.
STEP_END = 0
# The subject is a request, in the last one the first of a chain.
SAMPLED = 1  # a prompt is computed to its end, and the next token with it
BIND = 2  # prefill has begun: a decode instance is chosen
LANDED = 3  # its KV is on the decode instance
PASS_END = 4  # a decode pass has gone through all stages of a pipeline
# No subject. The first of the transfers under way is through, unless `stamp` is out of date.
DRAINED = 5

# Added to the order of steps' ends: what begins then sees all else that happens at that time.
_LAST = 1 << 60


@compiled
def push(w: World, events: list[Event], time: float, kind: int, subject: int, stamp: int) -> None:
    """Adds an event; of those of one time the first added comes first, and steps' ends last."""
    run = w.run[0]
    run.order += 1
    order = run.order + (_LAST if kind == STEP_END else 0)
    heapq.heappush(events, (time, order, kind, subject, stamp))
