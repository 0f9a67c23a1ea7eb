"""Finds a placement for a request, and waits a while for one where there is none yet."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from pdserve.errors import OverloadedError, PdserveError, UnavailableError
from services.router.fleet import Fleet
from services.router.instance import Instance
from services.router.placement.eligible import able_decodes
from services.router.placer import Placement, PlacementRequest, Placer, Refusal
from services.router.view import FleetView

_RETRY_AFTER_S = 1.0
# Load reports are many: whoever waits asks again at most so often.
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Assignment:
    """A placement with the live instances that it names; `prefill` is None on the local rung."""

    placement: Placement
    prefill: Instance | None
    decode: Instance


class Dispatcher:
    """Asks the placer, and again after changes of the fleet, for `timeout_s` at most."""

    def __init__(self, fleet: Fleet, placer: Placer, timeout_s: float) -> None:
        self._fleet = fleet
        self._placer = placer
        self._timeout_s = timeout_s
        self._shared: tuple[asyncio.Event, FleetView] | None = None

    def ready(self) -> bool:
        """Whether a request could be placed now: any decode instance can do both phases.

        The placer is not asked: this is no request, and takes nobody's turn.
        """
        return bool(able_decodes(PlacementRequest(1, 1), self._fleet.view()))

    async def assign(self, request: PlacementRequest) -> Assignment | Refusal:
        """An assignment, valid until the caller awaits anything; or the refusal that holds, at once
        where waiting is vain, else after `timeout_s`.
        """
        began = time.perf_counter()
        answer = self._ask(request)
        decision_s = time.perf_counter() - began
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                while isinstance(answer, Refusal) and not answer.overloaded:
                    await self._fleet.changed().wait()
                    await asyncio.sleep(_PAUSE_S)
                    answer = self._ask_again(request)
        if isinstance(answer, Placement):
            return self._resolve(replace(answer, decision_s=decision_s))
        if answer.overloaded:
            return answer
        return replace(answer, reason=f"{answer.reason}; waited {self._timeout_s:g} s")

    def _ask(self, request: PlacementRequest) -> Placement | Refusal:
        return self._placer.place(request, self._fleet.view())

    def _ask_again(self, request: PlacementRequest) -> Placement | Refusal:
        """As `_ask`. Where many wait, all that ask between two reports look at one view, until the
        first is placed and has changed it.
        """
        moment = self._fleet.changed()
        if self._shared is None or self._shared[0] is not moment:
            self._shared = moment, self._fleet.view()
        answer = self._placer.place(request, self._shared[1])
        if isinstance(answer, Placement):
            self._shared = None
        return answer

    def _resolve(self, placement: Placement) -> Assignment:
        prefill = placement.prefill
        return Assignment(
            placement,
            self._fleet.instance(prefill.incarnation) if prefill else None,
            self._fleet.instance(placement.decode.incarnation),
        )


def refusal_error(refusal: Refusal) -> PdserveError:
    """What the client of a request that was refused is told."""
    kind = OverloadedError if refusal.overloaded else UnavailableError
    retry_after_s = refusal.retry_after_s or _RETRY_AFTER_S
    return kind(refusal.reason, field=refusal.field, retry_after_s=retry_after_s)
