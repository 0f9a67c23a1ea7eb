"""The steps of an instance: what goes into one, how long it takes, and what is true after it."""

from pdserve.latency.cost import dispatch_s, mixed_s, prefill_stage_s
from pdserve.planner.simulator.compiled import compiled
from pdserve.planner.simulator.compose import decodable, fill
from pdserve.planner.simulator.events import SAMPLED, STEP_END, Event, push
from pdserve.planner.simulator.leap import leap_s, progression, steps_reaching
from pdserve.planner.simulator.memory import free_blocks, grow, make_room, steps_that_fit
from pdserve.planner.simulator.routing import unassign
from pdserve.planner.simulator.state import DECODING, JOINING, PREFILLING, World


@compiled
def wake(w: World, events: list[Event], i: int, now: float) -> None:
    """Something has come that instance `i`'s next step may use: it begins now, or soon.

    An idle instance begins at once. One in the midst of many decode steps looks up at the end of
    the one that it is in.
    """
    instance = w.instances[i]
    if not instance.busy:
        begin_step(w, events, i, now)
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
    _join(w, i)
    if instance.policy.kv_limit:
        make_room(w, i)
    tokens, squares, decodes = fill(w, events, i, now, decodable(w, i))
    _note(w, i, now)
    instance.taken = decodes
    instance.steps = 1
    instance.began_s = now
    instance.busy = tokens > 0 or decodes > 0
    if tokens and decodes:
        context = _context(w, i, decodes) + decodes
        end = now + mixed_s(instance.cost, tokens, squares, decodes, context)
        _announce_samples(w, events, i, end)
        _end_at(w, events, i, end)
    elif tokens:
        _begin_prefill(w, events, i, now, tokens, squares)
    elif decodes:
        first, slope = progression(instance.cost, decodes, _context(w, i, decodes))
        instance.steps = _steps_alike(w, i, decodes)
        _end_at(w, events, i, now + leap_s(first, slope, instance.steps))


@compiled
def end_step(w: World, i: int, now: float) -> None:
    """Books what instance `i`'s step has computed."""
    instance = w.instances[i]
    instance.busy = False
    instance.busy_s += now - instance.began_s
    if instance.taken or instance.joining:
        _book_decodes(w, i, now)
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
def _end_at(w: World, events: list[Event], i: int, time: float) -> None:
    instance = w.instances[i]
    instance.stamp += 1
    push(w, events, time, STEP_END, i, instance.stamp)


@compiled
def _join(w: World, i: int) -> None:
    """Sequences that came while the instance was idle take part from now on."""
    instance = w.instances[i]
    for k in range(instance.joining):
        r = w.lists[i, JOINING, k]
        w.lists[i, DECODING, instance.decoding] = r
        instance.decoding += 1
        instance.context += w.requests[r].context
    instance.joining = 0


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
def _begin_prefill(
    w: World, events: list[Event], i: int, now: float, tokens: int, squares: int
) -> None:
    """Sends a prefill pass through the pipeline; the next step may begin behind its first stage."""
    cost = w.instances[i].cost
    stage = prefill_stage_s(cost, tokens, squares)
    entered = now + dispatch_s(cost, tokens) + stage
    done = entered
    for k in range(1, cost.pp):
        done = max(done, w.stage_free_s[i, k]) + stage
        w.stage_free_s[i, k] = done
    _announce_samples(w, events, i, done)
    _end_at(w, events, i, entered)


@compiled
def _announce_samples(w: World, events: list[Event], i: int, time: float) -> None:
    """The prompts that this step computes to their end get a token at `time`."""
    for k in range(w.instances[i].prefilling):
        r = w.lists[i, PREFILLING, k]
        request = w.requests[r]
        if request.past + request.chunk == request.target:
            push(w, events, time, SAMPLED, r, 0)


@compiled
def _book_decodes(w: World, i: int, now: float) -> None:
    """Gives the sequences of the step their tokens, and lets those go that have all of theirs.

    Those that had to wait and those that came meanwhile are before the others in the next step.
    """
    instance = w.instances[i]
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
        request.context += instance.steps
        request.remaining -= instance.steps
        instance.context += instance.steps
        if instance.policy.kv_limit:
            grow(w, i, r)
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
def _note(w: World, i: int, now: float) -> None:
    """Keeps the largest values of the present slice of the timeline."""
    instance = w.instances[i]
    slices = w.timeline.shape[1]
    moment = w.timeline[i, min(int(now / w.run[0].slice_s), slices - 1)]
    moment.queued = max(moment.queued, instance.queued)
    moment.running = max(moment.running, instance.decoding + instance.prefilling)
    moment.kv_blocks = max(moment.kv_blocks, instance.kv_blocks - instance.free_blocks)
