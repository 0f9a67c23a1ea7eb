"""Which prefix blocks each instance still holds.

A block is held while fewer than `prefix_capacity` blocks have been touched since: least recently
used goes first, but that a block that is touched again and again counts each time. Each instance
has a place for a block at its id modulo the number of places, several times the capacity, so that
two blocks seldom want the same one; where they do, the later one has it.
"""

import numpy as np

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import NOBODY, Array, CachedPrefix, World
from pdserve.planner.simulator.tables import record_type

_PLACES_PER_BLOCK = 4


def new_prefix_cache(instances: int, capacity: int) -> Array:
    """Empty places, `[instances, places]`, for caches of up to `capacity` blocks."""
    places = 1 << (_PLACES_PER_BLOCK * capacity - 1).bit_length() if capacity else 1
    cache = np.zeros((instances, places), record_type(CachedPrefix))
    cache["block"] = NOBODY
    return cache


@compiled
def cached_tokens(w: World, i: int, r: int) -> int:
    """Leading tokens of request `r`'s prompt that instance `i` holds."""
    instance, request = w.instances[i], w.requests[r]
    if instance.prefix_capacity == 0:
        return 0
    mask = w.prefix_cache.shape[1] - 1
    blocks = 0
    for at in range(request.prefix_begin, request.prefix_end):
        block = w.prefix_ids[at]
        place = w.prefix_cache[i, block & mask]
        age = instance.prefix_clock - place.touched
        if place.block != block or age >= instance.prefix_capacity:
            break
        blocks += 1
    return min(blocks * w.run[0].prefix_block, request.prompt)


@compiled
def touch(w: World, i: int, r: int) -> None:
    """Instance `i` has computed, received or used all of request `r`'s prefix blocks."""
    instance, request = w.instances[i], w.requests[r]
    if instance.prefix_capacity == 0:
        return
    mask = w.prefix_cache.shape[1] - 1
    for at in range(request.prefix_begin, request.prefix_end):
        block = w.prefix_ids[at]
        place = w.prefix_cache[i, block & mask]
        instance.prefix_clock += 1
        place.block = block
        place.touched = instance.prefix_clock
