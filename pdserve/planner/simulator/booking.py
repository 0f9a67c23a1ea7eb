"""What is true after a step: tokens are booked, and sequences join, finish and leave."""

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.memory import free_blocks, grow
from pdserve.planner.simulator.routing import unassign
from pdserve.planner.simulator.state import DECODING, JOINING, NOBODY, PREFILLING, World


@compiled
def join(w: World, i: int, r: int) -> None:
    """Request `r` decodes on instance `i` from its next step on."""
    instance = w.instances[i]
    w.lists[i, JOINING, instance.joining] = r
    instance.joining += 1


@compiled
def leave(w: World, r: int) -> None:
    """Request `r` takes up nothing any more on the instance that decodes it."""
    if w.instances[w.requests[r].decode_on].policy.kv_limit:
        free_blocks(w, r)
    unassign(w, r)


@compiled
def finish(w: World, r: int, now: float) -> None:
    """Request `r` has its last token."""
    request, run = w.requests[r], w.run[0]
    request.finished_s = now
    run.left -= 1
    policy = w.instances[request.prefill_on].policy
    gaps = request.output - (0 if policy.first_token_decoded else 1)
    ttft_s = request.first_s - request.arrival_s
    tpot_s = (now - request.first_s) / max(1, gaps)
    if ttft_s <= run.ttft_s and tpot_s > run.tpot_s:
        run.misses += 1


@compiled
def book_prompts(w: World, i: int) -> None:
    """The chunks of instance `i`'s step are computed."""
    instance = w.instances[i]
    kept = 0
    for k in range(instance.prefilling):
        r = w.lists[i, PREFILLING, k]
        request = w.requests[r]
        request.past += request.chunk
        request.chunk = 0
        if request.past < request.target:
            w.lists[i, PREFILLING, kept] = r
            kept += 1
    instance.prefilling = kept


@compiled
def book_decodes(w: World, i: int, now: float) -> None:
    """Gives the sequences of the step their tokens, and lets those go that have all of theirs.

    Those that had to wait and those that came meanwhile are before the others in the next step.
    """
    instance = w.instances[i]
    steps, limited = instance.steps, instance.policy.kv_limit
    kept = 0
    for k in range(instance.taken, instance.decoding):
        w.order[kept] = w.lists[i, DECODING, k]
        kept += 1
    for k in range(instance.joining):
        r = w.lists[i, JOINING, k]
        w.order[kept] = r
        kept += 1
        instance.context += w.requests[r].context
    instance.joining = 0
    for k in range(instance.taken):
        r = w.lists[i, DECODING, k]
        request = w.requests[r]
        request.context += steps
        request.remaining -= steps
        instance.context += steps
        if limited:
            grow(w, i, r, 0)
        if request.remaining > 0:
            w.order[kept] = r
            kept += 1
        else:
            instance.context -= request.context
            leave(w, r)
            finish(w, r, now)
    for k in range(kept):
        w.lists[i, DECODING, k] = w.order[k]
    instance.decoding = kept
    instance.taken = 0


@compiled
def book_pass(w: World, i: int, head: int, now: float) -> None:
    """Gives the sequences of a pass that is through instance `i`'s pipeline their tokens."""
    instance = w.instances[i]
    r = head
    while r != NOBODY:
        request = w.requests[r]
        behind = request.behind
        request.context += 1
        request.remaining -= 1
        instance.passing -= 1
        if request.remaining > 0:
            join(w, i, r)
        else:
            leave(w, r)
            finish(w, r, now)
        r = behind
