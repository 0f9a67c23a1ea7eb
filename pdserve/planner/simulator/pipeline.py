"""A pass through the stages of a pipeline: each takes it up once it has let go of the one before.

The sequences of a decode pass are a chain, request to request, until it is through; meanwhile the
first stage begins with those that are at hand. So as many groups go round as come about.
"""

from pdserve.latency.cost import InstanceCost, decode_s, dispatch_s, mixed_s, prefill_stage_s
from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.state import DECODING, NOBODY, World


@compiled
def stage_s(cost: InstanceCost, tokens: int, squares: int, decodes: int, context: int) -> float:
    """Seconds of each stage for a pass of prompt tokens, decoding sequences, or both.

    `context` is what the decoding sequences attend to.
    """
    if tokens and decodes:
        whole = mixed_s(cost, tokens, squares, decodes, context)
        return (whole - dispatch_s(cost, tokens)) / cost.pp
    if tokens:
        return prefill_stage_s(cost, tokens, squares)
    # A round of `pp` groups like this one is as many dispatches and stages.
    pp = cost.pp
    return decode_s(cost, pp * decodes, pp * context) / pp - dispatch_s(cost, context)


@compiled
def send_through(
    w: World, i: int, now: float, dispatch: float, stage: float
) -> tuple[float, float]:
    """When a pass that enters instance `i`'s pipeline leaves its first stage, and its last."""
    entered = now + dispatch + stage
    done = entered
    for k in range(1, w.instances[i].cost.pp):
        done = max(done, w.stage_free_s[i, k]) + stage
        w.stage_free_s[i, k] = done
    return entered, done


@compiled
def detach(w: World, i: int, decodes: int) -> int:
    """Chains the first `decodes` decoding sequences of instance `i`; returns the first of them."""
    instance = w.instances[i]
    head = NOBODY
    for k in range(decodes - 1, -1, -1):
        r = w.lists[i, DECODING, k]
        w.requests[r].behind = head
        head = r
        instance.context -= w.requests[r].context
    instance.decoding -= decodes
    instance.passing += decodes
    for k in range(instance.decoding):
        w.lists[i, DECODING, k] = w.lists[i, DECODING, k + decodes]
    return head
