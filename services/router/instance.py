"""One instance as the router knows it, from its first report until it is lost."""

import asyncio
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc import aio

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.kv.wire import layout_from_proto
from pdserve.latency.cost import InstanceCost
from pdserve.rpc.v1 import decode_pb2_grpc, prefill_pb2_grpc, types_pb2
from services.router.knowledge import Knowledge
from services.router.placer import PRIORITIES, Objectives
from services.router.view import Candidate, Limits, Load, Work, Works

if TYPE_CHECKING:
    from pdserve.rpc.v1.decode_pb2_grpc import DecodeAsyncStub
    from pdserve.rpc.v1.prefill_pb2_grpc import PrefillAsyncStub

# A report that comes sooner after a dispatch may have been written before the dispatch arrived. To
# count a request twice until the next report does less harm than not to count it.
_REPORT_FLIGHT_S = 0.05


@dataclass(slots=True, eq=False)
class Dispatch:
    """One request on one instance: reserved at placement, sent once its call is open."""

    tokens: int
    work: Work
    priority: types_pb2.Priority.ValueType
    objectives: Objectives
    sent_at: float | None = None

    def sent(self) -> None:
        """The call has been opened; a later report covers it."""
        self.sent_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class Loss:
    """Why an instance is lost. `dead`: its process or device is known to be, not only silent."""

    reason: str
    dead: bool


class Instance:
    """One uninterrupted acquaintance with one incarnation of an instance.

    An instance that falls silent or restarts is lost for good: what comes after is another
    `Instance`, even under the same incarnation. `prefill` and `decode` are stubs on its channel;
    the one of its role is served. What is learned of it goes to `knowledge`, as long as it is not
    lost. Raises `IncompatibleLayoutError` for a report with an impossible KV layout.
    """

    def __init__(
        self,
        address: InstanceAddress,
        channel: aio.Channel,
        report: types_pb2.LoadReport,
        knowledge: Knowledge,
    ) -> None:
        self.role = address.role
        self.name = address.name
        self.address = address.address
        self.incarnation = report.info.incarnation
        self.knowledge = knowledge
        self.layout = layout_from_proto(report.info.layout)
        self.connect(channel)
        self._info = report.info
        self._limits = Limits(
            batch_tokens=report.info.max_batch_tokens,
            batch_seqs=report.info.max_batch_seqs,
            layer_groups=report.info.layer_groups,
        )
        self._dispatches: set[Dispatch] = set()
        self._uncovered: set[Dispatch] = set()
        self._lost = asyncio.Event()
        self._loss = Loss("", dead=False)
        self._candidate: Candidate | None = None
        self._cost: InstanceCost | None = None
        knowledge.join(address, self.incarnation)
        try:
            self.update(report)
        except BaseException:
            knowledge.leave(self.role, self.incarnation)
            raise

    def connect(self, channel: aio.Channel) -> None:
        """Takes another channel for calls that begin now."""
        self.prefill: PrefillAsyncStub = prefill_pb2_grpc.PrefillStub(channel)
        self.decode: DecodeAsyncStub = decode_pb2_grpc.DecodeStub(channel)

    def update(self, report: types_pb2.LoadReport) -> None:
        """Takes over a newer report of the same incarnation."""
        self._report = report
        self._reported_at = time.monotonic()
        covered = self._reported_at - _REPORT_FLIGHT_S
        self._uncovered = {
            dispatch
            for dispatch in self._uncovered
            if dispatch.sent_at is None or dispatch.sent_at > covered
        }
        self.knowledge.cached(self.role, self.incarnation, report.cache)
        cost = self.knowledge.cost(self.role, report)
        if cost != self._cost:  # one object as long as it is the same: placers compare those
            self._cost = cost
        self._candidate = None

    @contextmanager
    def dispatch(
        self,
        tokens: int,
        cached_tokens: int = 0,
        priority: types_pb2.Priority.ValueType = types_pb2.PRIORITY_NORMAL,
        objectives: Objectives = Objectives(),  # noqa: B008 - it is immutable
    ) -> Iterator[Dispatch]:
        """Counts a request of so many tokens on this instance as long as the context lasts."""
        work = Work(tokens - cached_tokens, tokens**2 - cached_tokens**2)
        dispatch = Dispatch(tokens, work, priority, objectives)
        self._dispatches.add(dispatch)
        self._uncovered.add(dispatch)
        self._candidate = None
        try:
            yield dispatch
        finally:
            self._dispatches.discard(dispatch)
            self._uncovered.discard(dispatch)
            self._candidate = None

    @property
    def running(self) -> int:
        """Requests that this router has on the instance."""
        return len(self._dispatches)

    def strictest_slo(self) -> tuple[float, float]:
        """The shortest TTFT and TPOT objectives of those requests, seconds; inf: none has any."""
        objectives = [dispatch.objectives for dispatch in self._dispatches]
        return (
            min((each.ttft_s for each in objectives if each.ttft_s is not None), default=math.inf),
            min((each.tpot_s for each in objectives if each.tpot_s is not None), default=math.inf),
        )

    def candidate(self) -> Candidate:
        """What a placer needs to know, as of now: the same object until something changes."""
        if self._candidate is None:
            self._candidate = self._as_candidate()
        return self._candidate

    def lose(self, reason: str, *, dead: bool) -> None:
        """Tells everything that runs on the instance that it is lost; the first reason stays."""
        if not self._lost.is_set():
            self.knowledge.leave(self.role, self.incarnation)
            self._loss = Loss(reason, dead)
            self._lost.set()

    async def lost(self) -> Loss:
        """Returns when the instance is lost."""
        await self._lost.wait()
        return self._loss

    def _as_candidate(self) -> Candidate:
        report = self._report
        prefills = self.role is Role.PREFILL
        reported = report.waiting_tokens if prefills else report.context_tokens
        dispatched = sum(dispatch.tokens for dispatch in self._uncovered)
        blocks = report.blocks.free + report.blocks.cached
        decoding = report.decoding_requests
        # Those that wait for memory are taken to be as long as those that have it.
        waiting = 0 if prefills else report.waiting_requests
        length = report.context_tokens / decoding if decoding else 0.0
        load = Load(
            requests=report.waiting_requests + report.running_requests + len(self._uncovered),
            tokens=reported + dispatched,
            decoding=decoding + waiting + len(self._uncovered),
            waiting_tokens=report.waiting_tokens + round(waiting * length),
            free_tokens=blocks * self.layout.block_size - dispatched,
            tpot_limit_s=report.tpot_limit_s,
            reported=_by_priority((each.priority, _queued(each)) for each in report.queued),
            dispatched=_by_priority((each.priority, each.work) for each in self._uncovered),
        )
        return Candidate(
            name=self.name,
            incarnation=self.incarnation,
            layout=self.layout,
            max_model_len=self._info.max_model_len,
            load=load,
            reported_at=self._reported_at,
            limits=self._limits,
            cost=self._cost,
        )


def _queued(queued: types_pb2.QueuedWork) -> Work:
    return Work(queued.tokens, queued.squares)


def _by_priority(parts: Iterable[tuple[types_pb2.Priority.ValueType, Work]]) -> Works:
    sums = dict.fromkeys(PRIORITIES, Work())
    for priority, work in parts:
        sums[priority or types_pb2.PRIORITY_NORMAL] += work
    high, normal, low = (sums[priority] for priority in PRIORITIES)
    return high, normal, low
