"""How many requests run at once, how many more may wait for their turn, and who is next."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pdserve.errors import OverloadedError, PdserveError, UnavailableError
from services.router.admission.fair_queue import Entry, FairQueue, Priority, Ticket
from services.router.admission.pace import Pace


class Admitted:
    """A request that runs."""

    def __init__(self, queue: FairQueue, entry: Entry, waited_s: float) -> None:
        self.waited_s = waited_s
        self._queue = queue
        self._entry = entry

    def produced(self, tokens: int) -> None:
        """Counts output for the client's share."""
        self._queue.charge(self._entry, tokens)


class Gate:
    """Lets `max_running` requests run and `max_queued` wait.

    A slot that becomes free is handed over at once, so nothing waits while one is. Where one
    request too many would wait, that of the client goes which holds most of the queue for its
    weight: a client that floods is refused, and the others keep their share of places and turns.
    """

    def __init__(
        self,
        max_running: int,
        max_queued: int,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._pace = pace
        self._clock = clock
        self._queue = FairQueue(clock)
        self._turns: dict[Entry, asyncio.Future[PdserveError | None]] = {}
        self._running = 0
        self._closed = False

    @property
    def running(self) -> int:
        """Requests that run."""
        return self._running

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def waiting(self, priority: Priority) -> int:
        """Those of a class."""
        return self._queue.waiting(priority)

    @asynccontextmanager
    async def enter(self, ticket: Ticket) -> AsyncIterator[Admitted]:
        """The request runs as long as the context lasts; before, it waits for its turn.

        Raises `UnavailableError` once the gate is closed, and `OverloadedError` where it is one too
        many, or has not begun at the ticket's `start_by`.
        """
        arrived = self._clock()
        entry = await self._turn(ticket)
        began = self._clock()
        try:
            yield Admitted(self._queue, entry, began - arrived)
        finally:
            self._pace.ended(self._clock() - began)
            self._release()

    def close(self) -> None:
        """Refuses whoever waits, and whoever comes."""
        self._closed = True
        for entry in self._queue.entries():
            self._refuse(entry, _draining())

    async def _turn(self, ticket: Ticket) -> Entry:
        if self._closed:
            raise _draining()
        entry = self._queue.push(ticket)
        if self._running < self._max_running:
            # Nothing else waits, since a slot is free.
            self._running += 1
            return self._queue.pop()
        turn = self._turns[entry] = asyncio.get_running_loop().create_future()
        try:
            if len(self._queue) > self._max_queued:
                self._refuse(self._queue.least_entitled(), self._full())
            await self._wait(turn, ticket)
        except BaseException:
            self._give_up(entry, turn)
            raise
        finally:
            del self._turns[entry]
        return entry

    async def _wait(self, turn: "asyncio.Future[PdserveError | None]", ticket: Ticket) -> None:
        patience_s = max(0.0, ticket.start_by - self._clock())
        # Unlike awaiting it, this leaves the future alone when the task is cancelled, so that it
        # tells what has become of the request.
        await asyncio.wait((turn,), timeout=None if math.isinf(patience_s) else patience_s)
        if not turn.done():
            raise OverloadedError(
                "the request has waited at the router until its TTFT objective was missed",
                field="slo.ttft_ms",
                retry_after_s=self._pace.wait_s(len(self._queue), self._max_running),
            )
        if refusal := turn.result():
            raise refusal

    def _refuse(self, entry: Entry, error: PdserveError) -> None:
        self._queue.remove(entry)
        self._turns[entry].set_result(error)

    def _give_up(self, entry: Entry, turn: "asyncio.Future[PdserveError | None]") -> None:
        """Leaves the queue; or hands on the slot that the request has just got."""
        if not turn.done():
            self._queue.remove(entry)
        elif turn.result() is None:
            self._release()

    def _release(self) -> None:
        if self._queue:
            self._turns[self._queue.pop()].set_result(None)
        else:
            self._running -= 1

    def _full(self) -> OverloadedError:
        return OverloadedError(
            f"{self._max_running} requests run (max_running) and {self._max_queued} wait "
            "(max_queued) already",
            field="max_queued",
            limit=str(self._max_queued),
            retry_after_s=self._pace.wait_s(self._max_queued + 1, self._max_running),
        )


def _draining() -> UnavailableError:
    return UnavailableError("the router is draining; use another one")
