"""A canary: the smallest request that hands KV over, to learn of a pair what only that shows."""

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry

from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import SamplingParams
from services.router.attempt import Attempts
from services.router.breakers import Breakers
from services.router.failure import AttemptFailed
from services.router.generation import Generation
from services.router.instance import Instance
from services.router.ledger import Timeline
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics
from services.router.model import ServedModel
from services.router.placer import Placement, Rung

# Longer than a channel takes to be built once more after a first failure.
DEADLINE_S = 10.0
# The first token comes from prefill, the second proves that decode has the KV.
_OUTPUT_TOKENS = 2


class CanaryOutcome(StrEnum):
    """What a canary told of its pair."""

    PASSED = "passed"
    FAILED = "failed"
    # It did not get as far as the hand-off: an instance had too much to do, or went away.
    UNDECIDED = "undecided"


class Canary:
    """Sends canaries of `tokens` prompt tokens through the legs that requests take.

    Clients' metrics do not count them. The bandwidth is noted by the hand-off itself.
    """

    def __init__(
        self, model: ServedModel, tokens: int, attempts: Attempts, breakers: Breakers
    ) -> None:
        self._model = model
        self._tokens = min(tokens, model.context_length - _OUTPUT_TOKENS)
        self._attempts = attempts
        self._breakers = breakers
        self._unread = RouterMetrics(CollectorRegistry())

    async def send(self, prefill: Instance, decode: Instance) -> CanaryOutcome:
        """Hands one over on exactly this pair, within `DEADLINE_S`."""
        live = self._request()
        live.begin_attempt(
            Placement(Rung.REMOTE, prefill.candidate(), decode.candidate(), "canary")
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._attempts.remote(live, prefill, decode)
        except AttemptFailed as failure:
            if not failure.of_hand_off:
                return _outcome(live, CanaryOutcome.UNDECIDED)
        except TimeoutError:
            if live.times.admitted is None:
                return CanaryOutcome.UNDECIDED
            if live.times.kv_ready is None:
                self._breakers.failed(prefill.incarnation, decode.incarnation)
        return _outcome(live, CanaryOutcome.FAILED)

    def _request(self) -> LiveRequest:
        now = time.monotonic()
        name = f"canary-{secrets.token_hex(8)}"
        generation = Generation(
            request_id=name,
            run_id=name,
            # No two have a prefix in common, or a cache would spare the hand-off.
            prompt_token_ids=_random_ids(self._model.vocab_size, self._tokens),
            sampling=SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=_OUTPUT_TOKENS),
            slo=types_pb2.Slo(),
            priority=types_pb2.PRIORITY_LOW,
            stops=(),
            continues_prompt=True,
            end_token_ids=frozenset(),
        )
        detokenizer = self._model.tokenizer.detokenizer(continuing=True)
        # Whoever waits for the answer gives up first: then it is known how far the canary came.
        deadline = now + DEADLINE_S + 1
        return LiveRequest(generation, detokenizer, Timeline(now), deadline, self._unread)


def _outcome(live: LiveRequest, otherwise: CanaryOutcome) -> CanaryOutcome:
    """Passed where the KV has landed, whatever came later."""
    return otherwise if live.times.kv_ready is None else CanaryOutcome.PASSED


def _random_ids(vocab_size: int, count: int) -> Sequence[int]:
    return random.choices(range(vocab_size), k=count)
