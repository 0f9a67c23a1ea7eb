"""The life of a request: attempts, until one of them brings it to its end."""

import asyncio
import logging
import random

from services.router.attempt import Attempts
from services.router.dispatcher import Assignment, Dispatcher, refusal_error
from services.router.failure import AttemptFailed, must_prove_itself
from services.router.generation import FinishReason
from services.router.knowledge import Knowledge
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics
from services.router.retries import Retries
from services.router.retry_budget import RetryBudget

log = logging.getLogger(__name__)

# A request that has nowhere else to go waits before it comes back: anything up to a bound that
# doubles, so that what failed together does not come back together (Brooker, "Exponential Backoff
# And Jitter", AWS Architecture Blog, 2015).
_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0


class Orchestrator:
    """Carries out the failure contract: what one instance fails, another goes on with.

    A further attempt prefills prompt and output so far, and avoids the instances that failed this
    request. Attempts are bounded in number by `Retries`, in time by the caller.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        attempts: Attempts,
        budget: RetryBudget,
        metrics: RouterMetrics,
        knowledge: Knowledge,
        max_attempts: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._attempts = attempts
        self._budget = budget
        self._metrics = metrics
        self._knowledge = knowledge
        self._max_attempts = max_attempts

    async def run(self, live: LiveRequest) -> FinishReason:
        """Generates into the request's outbox; returns why the generation ended.

        Raises the `PdserveError` that ends the request where no attempt could.
        """
        try:
            reason = await self._attempt_until_done(live)
            self._learn(live)
            return live.end(reason)
        finally:
            live.outbox.close()

    def _learn(self, live: LiveRequest) -> None:
        """Here and not in the legs, which canaries take as well: those are no client's habit."""
        timeline = live.timeline
        if timeline.first_token is not None and timeline.last_token is not None:
            seconds = timeline.last_token - timeline.first_token
            self._knowledge.ended(len(live.output.token_ids), seconds)

    async def _attempt_until_done(self, live: LiveRequest) -> FinishReason:
        self._budget.deposit()
        retries = Retries(self._budget, self._max_attempts, self._metrics)
        while True:
            assignment = await self._assign(live)
            live.begin_attempt(assignment.placement)
            try:
                return await self._attempt(live, assignment)
            except AttemptFailed as failure:
                self._note_failure(live, assignment, failure)
                if (reason := live.reason_to_end()) is not None:
                    return reason
                if error := retries.error_that_ends(live, failure):
                    raise error from failure

    async def _assign(self, live: LiveRequest) -> Assignment:
        answer = await self._dispatcher.assign(live.placement_request())
        if isinstance(answer, Assignment) and _comes_back(live, answer):
            await asyncio.sleep(_backoff_s(len(live.attempts)))
            answer = await self._dispatcher.assign(live.placement_request())
        if isinstance(answer, Assignment):
            self._metrics.attempt(answer.placement.rung)
            return answer
        self._metrics.attempt("reject")
        live.refused(answer)
        raise refusal_error(answer)

    async def _attempt(self, live: LiveRequest, assignment: Assignment) -> FinishReason:
        try:
            if assignment.prefill is None:
                return await self._attempts.local(live, assignment.decode)
            return await self._attempts.remote(live, assignment.prefill, assignment.decode)
        finally:
            live.end_attempt()

    def _note_failure(
        self, live: LiveRequest, assignment: Assignment, failure: AttemptFailed
    ) -> None:
        live.exclusions |= failure.exclusions(assignment.prefill)
        live.attempts[-1].failure = str(failure)
        self._metrics.retry(failure.cause)
        log.warning(
            "attempt failed",
            extra={
                "request_id": live.generation.request_id,
                "attempt": len(live.attempts),
                "cause": failure.cause,
                "detail": str(failure),
                "tokens": len(live.output.token_ids),
            },
        )


def _comes_back(live: LiveRequest, assignment: Assignment) -> bool:
    """Whether the request goes where it has failed, for want of another place."""
    chosen = [each for each in (assignment.prefill, assignment.decode) if each]
    return any(must_prove_itself(live.exclusions, each) for each in chosen)


def _backoff_s(attempts: int) -> float:
    return random.uniform(0, min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2**attempts))
