"""One instance as the router knows it, from its first report until it is lost."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc import aio

from pdserve.cluster.instance import InstanceAddress
from pdserve.kv.wire import layout_from_proto
from pdserve.rpc.v1 import decode_pb2_grpc, prefill_pb2_grpc, types_pb2
from services.router.view import Candidate, Load

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
    sent_at: float | None = None

    def sent(self) -> None:
        """The call has been opened; a later report covers it."""
        self.sent_at = time.monotonic()


class Instance:
    """One uninterrupted acquaintance with one incarnation of an instance.

    An instance that falls silent or restarts is lost for good: what comes after is another
    `Instance`, even under the same incarnation. `prefill` and `decode` are stubs on its channel;
    the one of its role is served. Raises `IncompatibleLayoutError` for a report with an impossible
    KV layout.
    """

    def __init__(
        self, address: InstanceAddress, channel: aio.Channel, report: types_pb2.LoadReport
    ) -> None:
        self.role = address.role
        self.name = address.name
        self.address = address.address
        self.incarnation = report.info.incarnation
        self.prefill: PrefillAsyncStub = prefill_pb2_grpc.PrefillStub(channel)
        self.decode: DecodeAsyncStub = decode_pb2_grpc.DecodeStub(channel)
        self._info = report.info
        self._layout = layout_from_proto(report.info.layout)
        self._dispatches: set[Dispatch] = set()
        self._uncovered: set[Dispatch] = set()
        self._lost = asyncio.Event()
        self._loss = ""
        self.update(report)

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

    @contextmanager
    def dispatch(self, tokens: int) -> Iterator[Dispatch]:
        """Counts a request of so many tokens on this instance as long as the context lasts."""
        dispatch = Dispatch(tokens)
        self._dispatches.add(dispatch)
        self._uncovered.add(dispatch)
        try:
            yield dispatch
        finally:
            self._dispatches.discard(dispatch)
            self._uncovered.discard(dispatch)

    @property
    def running(self) -> int:
        """Requests that this router has on the instance."""
        return len(self._dispatches)

    def candidate(self) -> Candidate:
        """What a placer needs to know, as of now."""
        report = self._report
        reported = report.waiting_tokens if self.role == "prefill" else report.context_tokens
        load = Load(
            requests=report.waiting_requests + report.running_requests + len(self._uncovered),
            tokens=reported + sum(dispatch.tokens for dispatch in self._uncovered),
        )
        return Candidate(
            name=self.name,
            incarnation=self.incarnation,
            layout=self._layout,
            max_model_len=self._info.max_model_len,
            load=load,
            reported_at=self._reported_at,
        )

    def lose(self, reason: str) -> None:
        """Tells everything that runs on the instance that it is lost; the first reason stays."""
        if not self._lost.is_set():
            self._loss = reason
            self._lost.set()

    async def lost(self) -> str:
        """Returns, with the reason in words, when the instance is lost."""
        await self._lost.wait()
        return self._loss
