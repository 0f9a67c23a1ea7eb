"""Which instances a request goes to: by predicted time, as the router places."""

from pdserve.latency.cost import decode_s, prefill_s
from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.network import pair_rate
from pdserve.planner.simulator.prefix_cache import cached_tokens
from pdserve.planner.simulator.state import BOTH, DECODE, NOBODY, World

# A decode instance whose KV is spoken for makes a request wait: as good as out of the question.
_FULL_S = 1e6


@compiled
def route(w: World, r: int) -> int:
    """The instance that computes request `r`'s prompt: where that is predicted to end first.

    Among instances that do both phases, the one with the fewest requests, then by that time.
    """
    request = w.requests[r]
    best, best_seqs, best_s, best_estimate = NOBODY, 0, 0.0, 0.0
    for i in range(len(w.instances)):
        instance = w.instances[i]
        if instance.role == DECODE or not w.able[instance.kind, r]:
            continue
        past = cached_tokens(w, i, r)
        squares = request.prompt * request.prompt - past * past
        estimate = prefill_s(instance.cost, request.prompt - past, squares)
        seconds = instance.backlog_s + estimate
        seqs = instance.seqs if instance.role == BOTH else 0
        if best == NOBODY or seqs < best_seqs or (seqs == best_seqs and seconds < best_s):
            best, best_seqs, best_s, best_estimate = i, seqs, seconds, estimate
    request.prefill_on = best
    request.estimate_s = best_estimate
    w.instances[best].backlog_s += best_estimate
    if w.instances[best].role == BOTH:
        _assign(w, r, best)
    return best


@compiled
def route_decode(w: World, r: int) -> int:
    """The decode instance with the least predicted TPOT, its share of the hand-off included."""
    request, run = w.requests[r], w.run[0]
    group = w.instances[request.prefill_on].group
    best, best_s = NOBODY, 0.0
    for d in range(len(w.instances)):
        instance = w.instances[d]
        if instance.role != DECODE or instance.group != group or not w.able[instance.kind, r]:
            continue
        tokens = instance.tokens + request.prompt
        rate = pair_rate(w, request.prefill_on, d, 1)
        seconds = decode_s(instance.cost, instance.seqs + 1, tokens)
        seconds += request.prompt * run.kv_bytes / rate / run.output_tokens
        if instance.policy.kv_limit and tokens > instance.cost.kv_tokens:
            seconds += _FULL_S * tokens / instance.cost.kv_tokens
        if best == NOBODY or seconds < best_s:
            best, best_s = d, seconds
    _assign(w, r, best)
    return best


@compiled
def _assign(w: World, r: int, d: int) -> None:
    request, instance = w.requests[r], w.instances[d]
    request.decode_on = d
    instance.seqs += 1
    instance.tokens += request.prompt


@compiled
def unassign(w: World, r: int) -> None:
    """Request `r` has finished on the instance that decodes it."""
    request = w.requests[r]
    instance = w.instances[request.decode_on]
    instance.seqs -= 1
    instance.tokens -= request.prompt


@compiled
def prefilled(w: World, r: int) -> None:
    """Request `r`'s prompt is computed, and expected no longer."""
    request = w.requests[r]
    w.instances[request.prefill_on].backlog_s -= request.estimate_s
    request.estimate_s = 0.0
