"""When canaries are sent: to pairs whose breaker waits for one, and to pairs that nobody uses."""

import asyncio
import logging
import random
import time

from pdserve.config import RouterConfig
from services.router.breakers import Breakers, Pair
from services.router.canary import Canary, CanaryOutcome
from services.router.fleet import Fleet
from services.router.links import Links
from services.router.metrics import RouterMetrics
from services.router.view import Candidate

log = logging.getLogger(__name__)

# One canary at a time; and after each a rest so long that they take but a share of the time. One
# that hangs is no load, so that it must not keep others waiting in proportion.
_SHARE_OF_TIME = 0.1
_LONGEST_REST_S = 10.0
_LONGEST_PAUSE_S = 1.0
# An instance that has not reported for so long is gone.
_FORGET_AFTER_S = 60.0


class Canaries:
    """Sends canaries, one at a time, as long as `run` runs.

    A pair whose breaker is half open comes first: the canary decides on it. Then pairs that nobody
    has measured for `canary_interval_s`, each of them once in that time at most, and none whose
    instances have work waiting: where there is work, requests measure. Other routers send canaries
    to the same instances, so nothing here happens at a fixed time.
    """

    def __init__(
        self,
        config: RouterConfig,
        fleet: Fleet,
        links: Links,
        breakers: Breakers,
        canary: Canary,
        metrics: RouterMetrics,
    ) -> None:
        self._interval_s = config.canary_interval_s
        self._pause_s = min(
            _LONGEST_PAUSE_S, config.breaker_cooldown_s / 4, config.canary_interval_s / 4 or 1.0
        )
        self._fleet = fleet
        self._links = links
        self._breakers = breakers
        self._canary = canary
        self._metrics = metrics
        self._sent_at: dict[Pair, float] = {}

    async def run(self) -> None:
        """Sends canaries until it is cancelled."""
        rest_s = self._pause_s
        while True:
            await asyncio.sleep(rest_s * random.uniform(0.5, 1.5))
            began = time.monotonic()
            try:
                await self._send_one()
            except Exception:
                log.exception("a canary failed for a reason of the router's own")
            took_s = time.monotonic() - began
            rest_s = max(self._pause_s, min(took_s / _SHARE_OF_TIME, _LONGEST_REST_S))

    async def _send_one(self) -> None:
        self._forget_the_gone()
        view = self._fleet.view()
        prefills = {each.incarnation: each for each in view.prefill}
        decodes = {each.incarnation: each for each in view.decode}
        for pair in self._breakers.due():
            if pair[0] in prefills and pair[1] in decodes:
                await self._decide(pair)
                return
        for pair in self._idle_pairs():
            if _has_time(prefills.get(pair[0])) and _has_time(decodes.get(pair[1])):
                await self._send(pair)
                return

    def _idle_pairs(self) -> list[Pair]:
        if not self._interval_s:
            return []
        before = time.monotonic() - self._interval_s
        self._sent_at = {pair: at for pair, at in self._sent_at.items() if at > before}
        used = self._breakers.open_pairs() | self._sent_at.keys()
        return [pair for pair in self._links.idle_pairs(self._interval_s) if pair not in used]

    async def _decide(self, pair: Pair) -> None:
        verdict = {
            CanaryOutcome.PASSED: self._breakers.passed,
            CanaryOutcome.FAILED: self._breakers.refused,
            CanaryOutcome.UNDECIDED: self._breakers.undecided,
        }
        verdict[await self._send(pair)](*pair)

    async def _send(self, pair: Pair) -> CanaryOutcome:
        self._sent_at[pair] = time.monotonic()
        prefill, decode = (self._fleet.instance(incarnation) for incarnation in pair)
        outcome = await self._canary.send(prefill, decode)
        self._metrics.canary(outcome)
        log.info(
            "canary %s",
            outcome,
            extra={"prefill": prefill.name, "decode": decode.name},
        )
        return outcome

    def _forget_the_gone(self) -> None:
        if not len(self._breakers):
            return
        known = {
            status.report.info.incarnation
            for status in self._fleet.status()
            if status.report_age_s < _FORGET_AFTER_S
        }
        self._breakers.keep(known)


def _has_time(candidate: Candidate | None) -> bool:
    """Whether an instance takes requests and has none waiting."""
    return candidate is not None and candidate.load.waiting_tokens == 0
