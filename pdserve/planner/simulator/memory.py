"""KV blocks: who may be admitted, how a batch grows, and who is preempted."""

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.prefix_cache import cached_tokens
from pdserve.planner.simulator.queues import put_back
from pdserve.planner.simulator.state import DECODE, DECODING, NOBODY, PREFILLING, World

# As pdserve.scheduling.scheduler: the share of the pool that admission leaves to running sequences.
GROWTH_RESERVE = 0.01


@compiled
def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold so many tokens."""
    return (tokens + block_size - 1) // block_size


@compiled
def is_pull(w: World, i: int, r: int) -> bool:
    """Whether request `r` comes to instance `i` with KV that is computed elsewhere."""
    return w.instances[i].role == DECODE and w.requests[r].preemptions == 0


@compiled
def fits(w: World, i: int, r: int) -> bool:
    """Whether instance `i` has a slot and blocks for all present tokens of waiting request `r`."""
    instance = w.instances[i]
    occupied = instance.decoding + instance.prefilling + instance.passing + instance.loading
    if occupied >= instance.policy.max_batch_seqs:
        return False
    if not instance.policy.kv_limit:
        return True
    reserve = int(instance.kv_blocks * GROWTH_RESERVE) if occupied else 0
    return _needed(w, i, r) + reserve <= instance.free_blocks


@compiled
def take_blocks(w: World, i: int, r: int) -> int:
    """Request `r` has its blocks on instance `i`; returns how many tokens' KV they hold."""
    instance, request = w.instances[i], w.requests[r]
    if not instance.policy.kv_limit:
        return 0
    needed = _needed(w, i, r)
    instance.free_blocks -= needed
    if request.decode_on == i:
        request.blocks = needed
    else:
        request.held_blocks = needed
    # The last token is always computed where its logits are wanted.
    usable = min(cached_tokens(w, i, r), request.target - (0 if is_pull(w, i, r) else 1))
    return usable - usable % instance.policy.block_size


@compiled
def free_held(w: World, r: int) -> None:
    """The instance that prefilled request `r` for another lets go of its KV."""
    request = w.requests[r]
    w.instances[request.prefill_on].free_blocks += request.held_blocks
    request.held_blocks = 0


@compiled
def free_blocks(w: World, r: int) -> None:
    """The instance that decodes request `r` lets go of its KV."""
    request = w.requests[r]
    w.instances[request.decode_on].free_blocks += request.blocks
    request.blocks = 0


@compiled
def grow(w: World, i: int, r: int, steps: int) -> None:
    """Request `r`, which decodes on instance `i`, has the blocks of its context `steps` on."""
    instance, request = w.instances[i], w.requests[r]
    blocks = blocks_for(request.context + steps, instance.policy.block_size)
    if blocks > request.blocks:
        instance.free_blocks -= blocks - request.blocks
        request.blocks = blocks


@compiled
def make_room(w: World, i: int) -> None:
    """Preempts sequences, the last one that arrived first, until all others can make a step.

    They have the blocks for it then: what is admitted besides cannot take them.
    """
    instance = w.instances[i]
    lacking = _growth(w, i, 1)
    while lacking > instance.free_blocks:
        _preempt(w, i)
        lacking = _growth(w, i, 1)
    if lacking:
        for k in range(instance.decoding):
            grow(w, i, w.lists[i, DECODING, k], 1)


@compiled
def steps_that_fit(w: World, i: int, most: int) -> int:
    """How many steps, from 1 up to `most`, the free blocks of instance `i` allow."""
    free = w.instances[i].free_blocks
    if _growth(w, i, most) <= free:
        return most
    low, high = 1, most  # `low` steps fit, `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        if _growth(w, i, middle) <= free:
            low = middle
        else:
            high = middle
    return low


@compiled
def _needed(w: World, i: int, r: int) -> int:
    # The first token's slot comes with pulled KV.
    tokens = w.requests[r].target + (1 if is_pull(w, i, r) else 0)
    return blocks_for(tokens, w.instances[i].policy.block_size)


@compiled
def _growth(w: World, i: int, steps: int) -> int:
    """Blocks that the decoding sequences of instance `i` lack for so many more steps."""
    instance = w.instances[i]
    size = instance.policy.block_size
    lacking = 0
    for k in range(instance.decoding):
        request = w.requests[w.lists[i, DECODING, k]]
        lacking += max(0, blocks_for(request.context + steps, size) - request.blocks)
    return lacking


@compiled
def _preempt(w: World, i: int) -> None:
    """Takes the blocks of the latest sequence, prefilling ones included, and lets it wait again."""
    instance = w.instances[i]
    latest, last, at, kind = NOBODY, NOBODY, 0, DECODING
    for k in range(instance.decoding):
        r = w.lists[i, DECODING, k]
        if w.requests[r].turn > latest:
            latest, last, at, kind = w.requests[r].turn, r, k, DECODING
    for k in range(instance.prefilling):
        r = w.lists[i, PREFILLING, k]
        if w.requests[r].turn > latest:
            latest, last, at, kind = w.requests[r].turn, r, k, PREFILLING
    request = w.requests[last]
    if kind == DECODING:
        instance.decoding -= 1
        instance.context -= request.context
        # What was sampled last has no KV yet; it is computed with the others.
        request.target = request.context + 1
        left = instance.decoding
    else:
        instance.prefilling -= 1
        left = instance.prefilling
    for k in range(at, left):
        w.lists[i, kind, k] = w.lists[i, kind, k + 1]
    free_blocks(w, last)
    request.past = 0
    request.preemptions += 1
    put_back(w, i, last)
