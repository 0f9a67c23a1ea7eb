"""The steps of an instance: when one begins, what goes into it, and how long it takes."""

from pdserve.latency.cost import dispatch_s
from pdserve.planner.simulator.booking import book_decodes, book_prompts
from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.compose import decodable, fill
from pdserve.planner.simulator.events import PASS_END, SAMPLED, STEP_END, Event, push
from pdserve.planner.simulator.leap import leap_s, progression, steps_reaching
from pdserve.planner.simulator.memory import make_room, steps_that_fit
from pdserve.planner.simulator.pipeline import detach, send_through, stage_s
from pdserve.planner.simulator.state import DECODING, PREFILLING, World


@compiled
def wake(w: World, events: list[Event], i: int, now: float) -> None:
    """Something has come that instance `i`'s next step may use: it begins now, or soon.

    An idle instance begins once all that happens now has happened, as if a step of no length ended.
    One in the midst of many decode steps looks up at the end of the one that it is in.
    """
    instance = w.instances[i]
    if not instance.busy:
        instance.busy = True
        instance.began_s = now
        _end_at(w, events, i, now)
    elif instance.steps > 1:
        first, slope = progression(instance.cost, instance.taken, instance.context)
        steps = steps_reaching(first, slope, now - instance.began_s)
        if steps < instance.steps:
            instance.steps = steps
            _end_at(w, events, i, instance.began_s + leap_s(first, slope, steps))


@compiled
def begin_step(w: World, events: list[Event], i: int, now: float) -> None:
    """Composes and starts the next step of instance `i`, which is idle; it may find nothing."""
    instance = w.instances[i]
    if instance.policy.kv_limit:
        make_room(w, i)
    tokens, squares, decodes = fill(w, events, i, now, decodable(w, i))
    _note(w, i, now, now)
    instance.steps = 1
    instance.began_s = now
    instance.busy = tokens > 0 or decodes > 0
    if tokens or instance.cost.pp > 1:
        if instance.busy:
            _begin_pass(w, events, i, now, tokens, squares, decodes)
    elif decodes:
        instance.taken = decodes
        instance.steps = _steps_alike(w, i, decodes)
        first, slope = progression(instance.cost, decodes, _context(w, i, decodes))
        _end_at(w, events, i, now + leap_s(first, slope, instance.steps))


@compiled
def end_step(w: World, i: int, now: float) -> None:
    """Books what instance `i`'s step has computed."""
    instance = w.instances[i]
    instance.busy = False
    if now > instance.began_s:
        _note(w, i, instance.began_s, now)
    instance.busy_s += now - instance.began_s
    if instance.taken or instance.joining:
        book_decodes(w, i, now)
    book_prompts(w, i)


@compiled
def _end_at(w: World, events: list[Event], i: int, time: float) -> None:
    instance = w.instances[i]
    instance.stamp += 1
    push(w, events, time, STEP_END, i, instance.stamp)


@compiled
def _context(w: World, i: int, decodes: int) -> int:
    """Tokens with KV of the first `decodes` decoding sequences."""
    if decodes == w.instances[i].decoding:
        return w.instances[i].context
    context = 0
    for k in range(decodes):
        context += w.requests[w.lists[i, DECODING, k]].context
    return context


@compiled
def _steps_alike(w: World, i: int, decodes: int) -> int:
    """For how many decode steps the batch stays as it is, if nothing comes from outside."""
    instance = w.instances[i]
    if decodes < instance.decoding:
        return 1  # the others take their turn
    steps = w.requests[w.lists[i, DECODING, 0]].remaining
    for k in range(1, decodes):
        steps = min(steps, w.requests[w.lists[i, DECODING, k]].remaining)
    steps = min(steps, max(1, (instance.policy.decode_context - instance.context) // decodes))
    return steps_that_fit(w, i, steps) if instance.policy.kv_limit else steps


@compiled
def _begin_pass(
    w: World, events: list[Event], i: int, now: float, tokens: int, squares: int, decodes: int
) -> None:
    """Sends a pass through the pipeline; the next step may begin behind its first stage."""
    instance = w.instances[i]
    cost = instance.cost
    context = _context(w, i, decodes) + decodes
    stage = stage_s(cost, tokens, squares, decodes, context)
    dispatch = dispatch_s(cost, tokens if tokens else context)
    entered, done = send_through(w, i, now, dispatch, stage)
    _announce_samples(w, events, i, done)
    if cost.pp == 1:
        instance.taken = decodes
    elif decodes:
        push(w, events, done, PASS_END, detach(w, i, decodes), 0)
    _end_at(w, events, i, entered)


@compiled
def _announce_samples(w: World, events: list[Event], i: int, time: float) -> None:
    """The prompts that this step computes to their end get a token at `time`."""
    instance = w.instances[i]
    for k in range(instance.prefilling):
        r = w.lists[i, PREFILLING, k]
        request = w.requests[r]
        if request.past + request.chunk == request.target:
            instance.passing += 1
            push(w, events, time, SAMPLED, r, 0)


@compiled
def _note(w: World, i: int, since: float, now: float) -> None:
    """Keeps the largest values of the slices of the timeline from `since` until now."""
    instance = w.instances[i]
    last = w.timeline.shape[1] - 1
    first = min(int(since / w.run[0].slice_s), last)
    running = instance.decoding + instance.prefilling + instance.passing
    for k in range(first, min(int(now / w.run[0].slice_s), last) + 1):
        moment = w.timeline[i, k]
        moment.queued = max(moment.queued, instance.queued)
        moment.running = max(moment.running, running)
        moment.kv_blocks = max(moment.kv_blocks, instance.kv_blocks - instance.free_blocks)
