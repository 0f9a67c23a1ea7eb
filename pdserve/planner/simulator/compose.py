"""What goes into a step: `pdserve.scheduling`'s rules, and those of the engines beside it.

`tests/unit/planner` runs the services' own scheduler and this on the same requests and demands the
same steps.
"""

from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.events import BIND, Event, push
from pdserve.planner.simulator.memory import fits, is_pull, take_blocks
from pdserve.planner.simulator.queues import dequeue
from pdserve.planner.simulator.routing import unassign
from pdserve.planner.simulator.state import DECODING, PREFILL, PREFILLING, World
from pdserve.planner.simulator.transfer import admit_pull


@compiled
def decodable(w: World, i: int) -> int:
    """How many sequences at the head of the list one decode step takes: all, if they fit in it."""
    instance = w.instances[i]
    bound = instance.policy.decode_context
    if instance.context + instance.decoding <= bound:
        return instance.decoding
    context = 0
    for k in range(instance.decoding):
        context += w.requests[w.lists[i, DECODING, k]].context + 1
        if context > bound:
            return max(1, k)
    return instance.decoding


@compiled
def fill(w: World, events: list[Event], i: int, now: float, decodes: int) -> tuple[int, int, int]:
    """Chooses the prompt tokens of the next step; returns them, their squares, and the decodes.

    Chunked: decodes first, then prompts in the order of arrival, cut where the budget ends.
    Otherwise whole prompts while they fit in the budget, and no decodes beside them.
    """
    instance = w.instances[i]
    left = _budget(w, i, decodes)
    tokens, squares = 0, 0
    for k in range(instance.prefilling):
        request = w.requests[w.lists[i, PREFILLING, k]]
        chunk = max(0, min(request.target - request.past, left))
        request.chunk = chunk
        squares += chunk * (chunk + 2 * request.past)
        tokens += chunk
        left -= chunk
    while instance.queued:
        r = instance.queue_head
        pull = is_pull(w, i, r)
        if pull and w.requests[r].finished_s <= now:  # not while it is NaN
            dequeue(w, i)  # its first token was its last
            unassign(w, r)
            continue
        if not fits(w, i, r) or not (pull or _in_budget(w, i, r, tokens, left)):
            break
        dequeue(w, i)
        past = take_blocks(w, i, r)
        if pull:
            admit_pull(w, events, i, r, past, now)
            continue
        request = w.requests[r]
        request.past = past
        _start(w, events, i, r, now)
        chunk = request.target - past
        if instance.policy.chunked:
            chunk = min(chunk, left)
        request.chunk = chunk
        squares += chunk * (chunk + 2 * past)
        tokens += chunk
        left -= chunk
    if tokens and not instance.policy.chunked:
        return tokens, squares, 0
    return tokens, squares, decodes


@compiled
def _budget(w: World, i: int, decodes: int) -> int:
    """Prompt tokens of the next step."""
    policy, cost = w.instances[i].policy, w.instances[i].cost
    budget = policy.max_batch_tokens if policy.max_batch_tokens else cost.kv_tokens
    return budget - (decodes if policy.chunked else 0)


@compiled
def _in_budget(w: World, i: int, r: int, tokens: int, left: int) -> bool:
    """Whether there are tokens left for waiting request `r`; one whole prompt may exceed them."""
    if w.instances[i].policy.chunked:
        return left > 0
    return tokens == 0 or w.requests[r].target <= left


@compiled
def _start(w: World, events: list[Event], i: int, r: int, now: float) -> None:
    """Request `r` leaves the queue to be prefilled."""
    instance, request = w.instances[i], w.requests[r]
    w.lists[i, PREFILLING, instance.prefilling] = r
    instance.prefilling += 1
    if request.preemptions == 0:
        request.started_s = now
        request.cached = request.past
        if instance.role == PREFILL:
            push(w, events, now, BIND, r, 0)
