"""Sends requests when they are due, whatever the server does."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from pdserve.bench.prompts import Conversations, Prompts, Turn
from pdserve.bench.record import Outcome, Record
from pdserve.bench.target import Prompt, RequestError, Send, Target
from pdserve.bench.timeline import Timeline
from pdserve.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Bounds:
    """`timeout_s` is that of one request; at most `in_flight` run at once.

    What is due beyond that is not sent, and recorded as such. When a run is stopped, requests have
    `after_stop_s` to end by themselves.
    """

    timeout_s: float = 600.0
    in_flight: int = 4096
    after_stop_s: float = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A workload that was sent to a target, by a generator that took `cpu` of a core for it.

    `records` are in the order of the workload; where it ended early, of its first requests.
    """

    target: str
    workload: Workload
    records: tuple[Record, ...]
    began: float
    elapsed_s: float
    cpu: float
    peak_in_flight: int


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request that is encoded."""

    index: int
    prompt: Prompt
    send: Send


class OpenLoop:
    """One run of a workload against a target.

    `stop` ends it early: nothing more is sent, and what runs is waited for a little. `seen` is
    called with each request that has ended.
    """

    def __init__(
        self,
        target: Target,
        workload: Workload,
        prompts: Prompts,
        bounds: Bounds,
        stop: asyncio.Event,
        seen: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self._target = target
        self._workload = workload
        self._prompts = prompts
        self._bounds = bounds
        self._stop = stop
        self._seen = seen
        self._conversations = Conversations(workload)
        self._records: list[Record] = []
        self._running: set[asyncio.Task[None]] = set()
        self._peak = 0
        self._began = 0.0

    async def run(self) -> Run:
        """Sends every request and waits for all of them to end."""
        when, cpu = time.time(), time.process_time()
        self._began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            await self._send_all(group)
            await self._finish()
        elapsed = time.perf_counter() - self._began
        return Run(
            target=self._target.name,
            workload=self._workload,
            records=tuple(sorted(self._records, key=lambda record: record.index)),
            began=when,
            elapsed_s=elapsed,
            cpu=(time.process_time() - cpu) / max(elapsed, 1e-9),
            peak_in_flight=self._peak,
        )

    async def _send_all(self, group: asyncio.TaskGroup) -> None:
        for index, due_s in enumerate(self._due_s()):
            # Encoded while there is time, but for what hangs on an answer that may still come.
            ready = None if self._conversations.last(index) else self._ready(index, None)
            if await self._stopped_before(due_s):
                return
            if len(self._running) >= self._bounds.in_flight:
                self._note(self._unsent(index, due_s))
                continue
            history = self._conversations.last(index)
            ready = ready or self._ready(index, history)
            turn = self._conversations.begin(
                index, ready.prompt, int(self._workload.prompt_tokens[index])
            )
            missed = history is not None and history.answer is None
            task = group.create_task(self._run_one(ready, due_s, turn, missed))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            self._peak = max(self._peak, len(self._running))

    def _due_s(self) -> list[float]:
        arrivals: list[float] = (self._workload.arrival_s - self._workload.arrival_s[0]).tolist()
        return arrivals

    def _ready(self, index: int, history: Turn | None) -> _Ready:
        prompt = self._prompts.build(index, history)
        send = self._target.request(prompt, int(self._workload.output_tokens[index]))
        return _Ready(index, prompt, send)

    async def _stopped_before(self, due_s: float) -> bool:
        """Waits until a request is due; true as soon as the run is to end."""
        left = self._began + due_s - time.perf_counter()
        if left <= 0:
            # What is late still lets those before it go out, and answers come in.
            await asyncio.sleep(0)
            return self._stop.is_set()
        try:
            async with asyncio.timeout(left):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _run_one(self, ready: _Ready, due_s: float, turn: Turn | None, missed: bool) -> None:
        outcome: Outcome = "interrupted"
        reason = ""
        timeline = Timeline(keep=turn is not None)
        try:
            async with asyncio.timeout(self._bounds.timeout_s):
                await ready.send(timeline)
            outcome = "ok"
            if turn is not None:
                turn.answer = timeline
        except TimeoutError:
            outcome, reason = "timeout", f"after {self._bounds.timeout_s:g} s"
        except RequestError as error:
            outcome, reason = error.refusal, error.reason
        finally:
            self._note(self._record(ready.index, due_s, timeline, outcome, reason, missed))

    async def _finish(self) -> None:
        """Waits for what runs: until it ends or, once the run is to end, for a little."""
        if not self._running:
            return
        stopped = asyncio.ensure_future(self._stop.wait())
        ended = asyncio.ensure_future(asyncio.wait(self._running))
        try:
            await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((ended,), timeout=self._bounds.after_stop_s)
        finally:
            stopped.cancel()
            ended.cancel()
        for task in self._running:
            task.cancel()

    def _record(
        self,
        index: int,
        due_s: float,
        timeline: Timeline,
        outcome: Outcome,
        reason: str,
        missed: bool,
    ) -> Record:
        arrivals = timeline.arrivals
        return Record(
            index=index,
            outcome=outcome,
            reason=reason,
            due_s=due_s,
            sent_s=timeline.sent - self._began,
            ttft_s=arrivals[0] - timeline.sent if arrivals else math.nan,
            e2e_s=arrivals[-1] - timeline.sent if arrivals and outcome == "ok" else math.nan,
            gaps_s=tuple(late - early for early, late in pairwise(arrivals)),
            prompt_tokens=int(self._workload.prompt_tokens[index]),
            asked_tokens=int(self._workload.output_tokens[index]),
            output_tokens=timeline.tokens,
            counted_tokens=timeline.prompt_tokens,
            cached_tokens=timeline.cached_tokens,
            answer_missed=missed,
        )

    def _unsent(self, index: int, due_s: float) -> Record:
        return Record(
            index=index,
            outcome="limited",
            reason=f"{self._bounds.in_flight} requests in flight",
            due_s=due_s,
            sent_s=math.nan,
            ttft_s=math.nan,
            e2e_s=math.nan,
            gaps_s=(),
            prompt_tokens=int(self._workload.prompt_tokens[index]),
            asked_tokens=int(self._workload.output_tokens[index]),
            output_tokens=0,
        )

    def _note(self, record: Record) -> None:
        self._records.append(record)
        self._seen(record)
