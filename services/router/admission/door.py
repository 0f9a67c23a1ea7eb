"""The door of the router: limits of keys first, then the gate."""

import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from pdserve.config import RouterConfig
from pdserve.key_limits import Client
from services.router.admission.account import Accounts
from services.router.admission.fair_queue import Ticket
from services.router.admission.gate import Admitted, Gate
from services.router.admission.pace import Pace
from services.router.admission.visit import Visit
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics


class Door:
    """Lets requests in, as far as their key's limits and the router's own allow."""

    def __init__(self, config: RouterConfig, metrics: RouterMetrics) -> None:
        pace = Pace()
        self._metrics = metrics
        self._accounts = Accounts(pace, time.monotonic)
        self._gate = Gate(config.max_running, config.max_queued, pace)
        metrics.watch_gate(lambda: self._gate.running, self._gate.waiting)

    @property
    def running(self) -> int:
        """Requests that run."""
        return self._gate.running

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return self._gate.queued

    def close(self) -> None:
        """Refuses all that wait and all that come."""
        self._gate.close()

    @contextmanager
    def visit(self, client: Client, runs: int) -> Iterator[Visit]:
        """One request of `client`; the context lasts as long as any of its `runs`."""
        visit = Visit(client, self._accounts.of(client), runs)
        try:
            yield visit
        finally:
            visit.leave()

    @asynccontextmanager
    async def run(self, visit: Visit, live: LiveRequest) -> AsyncIterator[Admitted]:
        """One of the runs, as long as the context lasts; waits for its turn before.

        Raises `OverloadedError` where a limit forbids it, and `UnavailableError` once closed.
        """
        reserved = live.generation.total_tokens
        await visit.reserve(reserved)
        try:
            async with self._gate.enter(_ticket(visit.client, live)) as admitted:
                self._metrics.admitted(live.generation.priority, admitted.waited_s)
                yield admitted
        finally:
            visit.settle(reserved, _used_tokens(live))


def _ticket(client: Client, live: LiveRequest) -> Ticket:
    generation = live.generation
    slo = generation.slo
    hard = slo.hard and slo.HasField("ttft_ms")
    return Ticket(
        client=client.name,
        weight=client.limits.weight,
        priority=generation.priority,
        tokens=len(generation.prompt_token_ids),
        start_by=live.timeline.received + slo.ttft_ms / 1e3 if hard else math.inf,
    )


def _used_tokens(live: LiveRequest) -> int:
    """What counts towards the key's limit: nothing where no instance has had the request."""
    if not live.attempts:
        return 0
    return len(live.generation.prompt_token_ids) + len(live.output.token_ids)
