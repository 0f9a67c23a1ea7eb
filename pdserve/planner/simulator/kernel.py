"""The main loop: takes what happens next, until every request has an end."""

import heapq
import math

from pdserve.planner.simulator.booking import book_pass, finish, join, leave
from pdserve.planner.simulator.compiled import compiled, entry
from pdserve.planner.simulator.events import (
    BIND,
    DRAINED,
    LANDED,
    PASS_END,
    SAMPLED,
    STEP_END,
    Event,
)
from pdserve.planner.simulator.memory import free_held
from pdserve.planner.simulator.network import take_drained
from pdserve.planner.simulator.prefix_cache import touch
from pdserve.planner.simulator.queues import enqueue
from pdserve.planner.simulator.routing import prefilled, route, route_decode, unassign
from pdserve.planner.simulator.shared import by_reference
from pdserve.planner.simulator.state import NOBODY, PREFILL, World
from pdserve.planner.simulator.step import begin_step, end_step, wake
from pdserve.planner.simulator.transfer import admit_pull, land, through


@entry
def run(tables: World) -> float:
    """Runs all requests; returns the time of the last event.

    Ends early once more than `allowed_misses` requests have missed an SLO for certain.
    """
    w = by_reference(tables)
    events = [(0.0, 0, STEP_END, 0, NOBODY)]
    heapq.heappop(events)  # the list has its type now
    state = w.run[0]
    now = 0.0
    while state.left > 0 or (events and events[0][0] <= now):  # a step ends with its last token
        if state.misses > state.allowed_misses:
            break
        if state.arrived < len(w.requests):
            arrival_s = w.requests[state.arrived].arrival_s
            if not events or arrival_s <= events[0][0]:
                now = arrival_s
                _arrive(w, events, state.arrived, now)
                state.arrived += 1
                continue
        now, _, kind, subject, stamp = heapq.heappop(events)
        if kind == STEP_END:
            if w.instances[subject].stamp == stamp:
                end_step(w, subject, now)
                begin_step(w, events, subject, now)
        elif kind == SAMPLED:
            _sampled(w, events, subject, now)
        elif kind == BIND:
            _bind(w, events, subject, now)
        elif kind == LANDED:
            _landed(w, events, subject, now)
        elif kind == PASS_END:
            i = w.requests[subject].decode_on
            book_pass(w, i, subject, now)
            wake(w, events, i, now)
        elif kind == DRAINED and state.transfers_stamp == stamp:
            r = take_drained(w, events, now)
            while r != NOBODY:
                through(w, events, r, now)
                r = take_drained(w, events, now)
    return now


@compiled
def _arrive(w: World, events: list[Event], r: int, now: float) -> None:
    i = route(w, r)
    w.requests[r].target = w.requests[r].prompt
    enqueue(w, i, r)
    wake(w, events, i, now)


@compiled
def _bind(w: World, events: list[Event], r: int, now: float) -> None:
    """Prefill of request `r` has begun: late binding, so that nobody holds memory for a queue."""
    d = route_decode(w, r)
    if w.instances[d].policy.kv_limit:
        enqueue(w, d, r)
        wake(w, events, d, now)


@compiled
def _sampled(w: World, events: list[Event], r: int, now: float) -> None:
    """Request `r` is computed to its end, on prefill or, after a preemption, where it decodes."""
    request, state = w.requests[r], w.run[0]
    i = request.decode_on if request.preemptions else request.prefill_on
    instance = w.instances[i]
    instance.passing -= 1
    touch(w, i, r)
    request.context = request.target
    if request.first_s <= now:  # not while it is NaN
        request.remaining -= 1
    else:
        request.first_s = now
        request.remaining = request.output - (0 if instance.policy.first_token_decoded else 1)
        if now - request.arrival_s > state.ttft_s:
            state.misses += 1
        prefilled(w, r)
    done = request.remaining == 0
    if done:
        finish(w, r, now)
    if instance.role == PREFILL:
        if done and math.isnan(request.admitted_s):
            _keep(w, events, r, now)
        else:
            _hand_over(w, events, r, now)
    elif done:
        leave(w, r)
    else:
        join(w, i, r)
    wake(w, events, i, now)  # with a pipeline it may have waited for this place


@compiled
def _keep(w: World, events: list[Event], r: int, now: float) -> None:
    """The first token of request `r` was its last, before decode had blocks for its KV."""
    request = w.requests[r]
    free_held(w, r)
    if w.instances[request.decode_on].policy.kv_limit:
        wake(w, events, request.decode_on, now)  # its queue forgets it
    else:
        unassign(w, r)


@compiled
def _hand_over(w: World, events: list[Event], r: int, now: float) -> None:
    request = w.requests[r]
    d = request.decode_on
    if not w.instances[d].policy.kv_limit:
        admit_pull(w, events, d, r, 0, now)
    elif request.drained:
        land(w, events, r, now)


@compiled
def _landed(w: World, events: list[Event], r: int, now: float) -> None:
    """All KV of request `r` is on the instance that decodes it."""
    request = w.requests[r]
    d = request.decode_on
    w.instances[d].loading -= 1
    free_held(w, r)
    touch(w, d, r)
    if request.remaining == 0:
        leave(w, r)  # its first token was its last
    else:
        request.ready_s = now
        join(w, d, r)
    if w.instances[request.prefill_on].queued:
        wake(w, events, request.prefill_on, now)
    wake(w, events, d, now)
