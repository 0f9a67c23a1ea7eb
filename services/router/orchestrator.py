"""The life of a request: attempts, until one of them brings it to its end."""

import logging

from pdserve.errors import OverloadedError, PdserveError, UnavailableError
from services.router.attempt import run_local, run_remote
from services.router.dispatcher import RETRY_AFTER_S, Assignment, Dispatcher
from services.router.failure import AttemptFailed
from services.router.generation import FinishReason
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics
from services.router.releaser import Releaser

log = logging.getLogger(__name__)


class Orchestrator:
    """Carries out the failure contract: what one instance fails, another goes on with.

    A further attempt prefills prompt and output so far, and avoids the instances that failed this
    request. Attempts are bounded in number here, in time by the caller.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        releaser: Releaser,
        metrics: RouterMetrics,
        max_attempts: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._releaser = releaser
        self._metrics = metrics
        self._max_attempts = max_attempts

    async def run(self, live: LiveRequest) -> FinishReason:
        """Generates into the request's outbox; returns why the generation ended.

        Raises the `PdserveError` that ends the request where no attempt could.
        """
        try:
            return live.end(await self._attempt_until_done(live))
        finally:
            live.outbox.close()

    async def _attempt_until_done(self, live: LiveRequest) -> FinishReason:
        while True:
            assignment = await self._assign(live)
            live.begin_attempt(assignment.placement)
            try:
                return await self._attempt(live, assignment)
            except AttemptFailed as failure:
                self._note_failure(live, assignment, failure)
                if (reason := live.reason_to_end()) is not None:
                    return reason
                if error := self._error_that_ends(live, failure):
                    raise error from failure

    async def _assign(self, live: LiveRequest) -> Assignment:
        try:
            assignment = await self._dispatcher.assign(live.placement_request())
        except PdserveError:
            self._metrics.attempt("reject")
            raise
        self._metrics.attempt(assignment.placement.rung)
        return assignment

    async def _attempt(self, live: LiveRequest, assignment: Assignment) -> FinishReason:
        if assignment.prefill is None:
            return await run_local(live, assignment.decode)
        return await run_remote(live, assignment.prefill, assignment.decode, self._releaser)

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

    def _error_that_ends(self, live: LiveRequest, failure: AttemptFailed) -> PdserveError | None:
        if error := failure.final_error():
            return error
        if len(live.attempts) < self._max_attempts:
            return None
        text = f"gave up after {len(live.attempts)} attempts; the last failed: {failure}"
        overloaded = all(isinstance(each.error, OverloadedError) for each in failure.failures)
        kind = OverloadedError if overloaded else UnavailableError
        return kind(text, retry_after_s=RETRY_AFTER_S)
