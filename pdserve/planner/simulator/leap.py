"""Many decode steps at once: while a batch stays as it is, its steps' times are a progression.

Every step each sequence's context grows by one token, so that a step takes `slope` seconds longer
than the one before. `n` steps take `n · first + slope · n (n - 1) / 2`.
"""

import math

from pdserve.latency.cost import InstanceCost, decode_s
from pdserve.planner.simulator.compiled import compiled


@compiled
def progression(cost: InstanceCost, batch: int, context: int) -> tuple[float, float]:
    """Seconds of the first step of `batch` sequences, and by how much each next one is longer.

    `context` tokens have KV before it; a token attends to itself as well.
    """
    first = decode_s(cost, batch, context + batch)
    return first, decode_s(cost, batch, context + 2 * batch) - first


@compiled
def leap_s(first: float, slope: float, steps: int) -> float:
    """Seconds that `steps` steps take."""
    return steps * first + slope * (0.5 * steps * (steps - 1))


@compiled
def steps_reaching(first: float, slope: float, seconds: float) -> int:
    """The least number of steps, but at least one, that take `seconds` or more."""
    if slope > 0.0:
        linear = first - 0.5 * slope
        steps = (math.sqrt(linear * linear + 2.0 * slope * seconds) - linear) / slope
    else:
        steps = seconds / first
    count = max(1, math.ceil(steps))
    # The root is rounded; what counts is on which side of `seconds` each boundary lies.
    while count > 1 and leap_s(first, slope, count - 1) >= seconds:
        count -= 1
    while leap_s(first, slope, count) < seconds:
        count += 1
    return count
