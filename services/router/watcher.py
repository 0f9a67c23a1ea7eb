"""Follows the load reports of one address and tells from them how its instance is."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from enum import StrEnum

import grpc
from grpc import aio

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.config import RouterConfig
from pdserve.errors import IncompatibleLayoutError
from pdserve.rpc.handshake import handshake_failure
from pdserve.rpc.renewed_channel import RenewedChannel
from pdserve.rpc.tls_identity import TlsIdentity
from pdserve.rpc.v1 import decode_pb2_grpc, prefill_pb2_grpc, router_pb2, types_pb2
from services.router.instance import Instance
from services.router.knowledge import Knowledge
from services.router.model import ServedModel
from services.router.patience import NO_SLO, Patience, longest_step_s
from services.router.view import Candidate

log = logging.getLogger(__name__)

# Bounds the life of one stream, so that nothing which went wrong with it can last.
_STREAM_LIFE_S = 600.0
_RECONNECT_PAUSE_S = 0.1
_REASON_LIFE_S = 10.0
_ROLES = {Role.PREFILL: types_pb2.ROLE_PREFILL, Role.DECODE: types_pb2.ROLE_DECODE}


class State(StrEnum):
    """How an instance is. Only an instance that is up takes new requests."""

    CONNECTING = "connecting"
    UP = "up"
    DRAINING = "draining"
    # No report, or a step that does not end: the process may be stopped, or its device stuck.
    SILENT = "silent"
    DOWN = "down"


class Watcher:
    """Watches one address; `instance` is who listens there now, None while nobody usable does.

    What runs on an instance is told of its loss when no report came, or a step has not ended, for
    longer than `Patience` bears, and when another incarnation reports from the same address. A
    broken stream alone is no loss: it only takes the instance out of placement, for the calls of
    running requests share the connection and fail by themselves if it is cut.
    """

    def __init__(
        self,
        address: InstanceAddress,
        config: RouterConfig,
        model: ServedModel,
        knowledge: Knowledge,
        tls: TlsIdentity | None,
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.state = State.CONNECTING
        self.detail = ""
        self.instance: Instance | None = None
        self._config = config
        self._model = model
        self._knowledge = knowledge
        self._tls = tls
        self._on_change = on_change
        self._patience = Patience(
            config.silence_floor_s, config.silence_timeout_s, config.step_timeout_s
        )
        self._opened_at = 0.0
        # Beyond which the step that was last found stuck is so.
        self._stuck_s = math.inf
        self._report: types_pb2.LoadReport | None = None
        self._reported_at = 0.0
        # How long the router could not have noticed a report since then.
        self._stood_still_s = 0.0

    async def run(self) -> None:
        """Watches until it is cancelled. What nobody foresaw costs the instance, not the router."""
        grace_s = self._config.request_timeout_s
        async with RenewedChannel(self.address.address, self._tls, grace_s) as channel:
            try:
                while True:
                    try:
                        if self._may_answer(channel.current):
                            await self._follow_one_stream(channel.current)
                    except Exception as error:
                        log.exception("watching %s failed", self.address.name)
                        self._withdraw(State.DOWN, f"the router failed to watch it: {error!r}")
                    self._lose_if_silent()
                    await asyncio.sleep(_RECONNECT_PAUSE_S)
                    self._renew(channel)
            finally:
                self._lose("the router no longer watches it", dead=False)

    def candidate(self) -> Candidate | None:
        """The instance as a placer sees it; None unless it takes new requests."""
        return self.instance.candidate() if self.instance and self.state is State.UP else None

    def status(self) -> router_pb2.InstanceStatus:
        """The state for people and tools."""
        return router_pb2.InstanceStatus(
            address=self.address.address,
            state=self.state,
            detail=self.detail,
            report_age_s=time.monotonic() - self._reported_at if self._report else 0.0,
            report=self._report,
            router_requests=self.instance.running if self.instance else 0,
            name=self.address.name,
            role=_ROLES[self.address.role],
        )

    async def _follow_one_stream(self, channel: aio.Channel) -> None:
        try:
            await self._follow(channel)
            self._enter(State.DOWN, "it closed its load stream")
        except TimeoutError:
            self._enter(State.SILENT if self._report else State.DOWN, "it does not report")
        except IncompatibleLayoutError as error:
            self._enter(State.DOWN, str(error))
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                role = self.address.role
                self._withdraw(State.DOWN, f"it is listed as {role}, but does not serve {role}")
            elif error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                self._enter(State.DOWN, self._explain(error))

    def _may_answer(self, channel: aio.Channel) -> bool:
        """Whether a call would not fail at once, for want of a connection that gRPC tries to make.

        Now and then one is made all the same, since the reason may be another by now. Each that
        fails so costs gRPC half a kilobyte for good.
        """
        state = channel.get_state(try_to_connect=True)
        asked_lately = time.monotonic() - self._opened_at < _REASON_LIFE_S
        return state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE or not asked_lately

    def _lose_if_silent(self) -> None:
        if self.instance and time.monotonic() >= self._silent_at():
            age_s = time.monotonic() - self._reported_at
            self._lose(f"no report for {age_s:.1f} s", dead=False)

    def _renew(self, channel: RenewedChannel) -> None:
        """Takes new certificates where a connection may have to be made; one that works stays."""
        in_doubt = self.state in (State.DOWN, State.SILENT)
        if in_doubt and channel.renew() and self.instance:
            self.instance.connect(channel.current)

    async def _follow(self, channel: aio.Channel) -> None:
        """Returns at the end of a stream; raises `TimeoutError` at the end of the patience."""
        call = self._open(channel)
        self._opened_at = time.monotonic()
        # No group of tasks: one that ends with an error forgets that it was cancelled meanwhile.
        async with asyncio.timeout(None) as silence:
            listening = asyncio.create_task(self._end_at(silence))
            try:
                async for report in call:
                    self._observe(channel, report)
            finally:
                listening.cancel()
                call.cancel()

    async def _end_at(self, silence: asyncio.Timeout) -> None:
        """Lets the timeout end when no report has come for too long.

        How long that is changes with the requests on the instance, so it looks again and again.
        While this process itself stands still nobody is silent: a router that was stopped for a
        while must not take all of the fleet for dead.
        """
        while (left_s := self._silent_at() - time.monotonic()) > 0:
            wakes_at = time.monotonic() + min(left_s, self._patience.interval_s)
            await asyncio.sleep(wakes_at - time.monotonic())
            self._stood_still_s += max(0.0, time.monotonic() - wakes_at)
        silence.reschedule(0)

    def _open(
        self, channel: aio.Channel
    ) -> "aio.UnaryStreamCall[types_pb2.WatchLoadRequest, types_pb2.LoadReport]":
        request = types_pb2.WatchLoadRequest(interval_s=self._patience.interval_s, cache=True)
        stub: prefill_pb2_grpc.PrefillAsyncStub | decode_pb2_grpc.DecodeAsyncStub
        if self.address.role == "prefill":
            stub = prefill_pb2_grpc.PrefillStub(channel)
        else:
            stub = decode_pb2_grpc.DecodeStub(channel)
        return stub.WatchLoad(request, timeout=_STREAM_LIFE_S)

    def _silent_at(self) -> float:
        """When whoever listens there is given up if it says nothing more."""
        if self.instance:
            since = self._reported_at
            patience_s = self._patience.silence_s(*self.instance.strictest_slo())
        else:
            since = max(self._opened_at, self._reported_at)
            patience_s = max(self._config.connect_timeout_s, self._config.silence_timeout_s)
        return since + self._stood_still_s + patience_s

    def _observe(self, channel: aio.Channel, report: types_pb2.LoadReport) -> None:
        self._report = report
        self._reported_at = time.monotonic()
        self._stood_still_s = 0.0
        if report.info.model not in self._model.names:
            text = f"its model is {report.info.model}, the router's is {self._model.id}"
            self._withdraw(State.DOWN, text)
        elif self._is_known_already(report):
            self._withdraw(State.DOWN, "another address leads to the same instance")
        elif self._is_stuck(report):
            text = f"its step has not ended for {report.step_age_s:.1f} s"
            self._withdraw(State.SILENT, text, dead=True)
        else:
            self._meet(channel, report)
            self._enter(State.DRAINING if report.draining else State.UP, "")
        self._on_change()

    def _is_known_already(self, report: types_pb2.LoadReport) -> bool:
        """Whether another watcher has met the instance first."""
        incarnation = report.info.incarnation
        mine = self.instance is not None and self.instance.incarnation == incarnation
        return not mine and self._knowledge.knows(self.address.role, incarnation)

    def _is_stuck(self, report: types_pb2.LoadReport) -> bool:
        """Whether a step takes too long. It stays so until that step ends, although those whose
        objectives made it so are gone from then on.
        """
        if report.step_age_s <= self._patience.shortest_step_s:
            self._stuck_s = math.inf
            return False
        slo = self.instance.strictest_slo() if self.instance else NO_SLO
        bound_s = min(self._stuck_s, self._patience.step_s(*slo, longest_step_s(report)))
        stuck = report.step_age_s > bound_s
        self._stuck_s = bound_s if stuck else math.inf
        return stuck

    def _meet(self, channel: aio.Channel, report: types_pb2.LoadReport) -> None:
        if self.instance and self.instance.incarnation == report.info.incarnation:
            self.instance.update(report)
            return
        self._lose("another incarnation has taken its place", dead=True)
        self.instance = Instance(self.address, channel, report, self._knowledge)

    def _explain(self, error: aio.AioRpcError) -> str:
        details = error.details() or error.code().name
        return handshake_failure(details, self._tls.client if self._tls else None) or details

    def _withdraw(self, state: State, reason: str, *, dead: bool = False) -> None:
        self._lose(reason, dead=dead)
        self._enter(state, reason)

    def _lose(self, reason: str, *, dead: bool) -> None:
        if self.instance:
            self.instance.lose(reason, dead=dead)
            self.instance = None
            self._on_change()

    def _enter(self, state: State, detail: str) -> None:
        changed = state is not self.state
        self.state, self.detail = state, detail
        if changed:
            log.info(
                "instance is %s",
                state,
                extra={"instance": self.address.name, "role": self.address.role, "detail": detail},
            )
            self._on_change()
