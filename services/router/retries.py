"""Whether a request is placed once more after an attempt of it has failed."""

from pdserve.cluster.instance import Role
from pdserve.errors import EngineError, OverloadedError, PdserveError, UnavailableError
from services.router.failure import LOST, PROTOCOL, AttemptFailed
from services.router.instance import Instance
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics
from services.router.retry_budget import RetryBudget

# An instance whose process, engine or device is gone, maybe for what the request made it do.
# Silence is no such proof: on a starved machine it would condemn what ran there.
_DEADLY = frozenset({LOST, EngineError.reason})
# What no death and no broken link is behind: even the first retry for these is paid for.
_CHARGED = frozenset({OverloadedError.reason, PdserveError.reason, PROTOCOL})
_MOST_DEATHS = 2
# A request that got so many tokens out of an attempt is no poison: it has been computed for long.
_PROVEN_TOKENS = 16
_RETRY_AFTER_S = 1.0


class Retries:
    """Decides for one request.

    Its first retry is free where an instance or a link failed: when an instance dies, all that ran
    on it must move at once, and each does so once. Every other retry is paid from the `budget` that
    all requests share. A request on which two instances have died gets no third.
    """

    def __init__(self, budget: RetryBudget, max_attempts: int, metrics: RouterMetrics) -> None:
        self._budget = budget
        self._max_attempts = max_attempts
        self._metrics = metrics
        self._free = True
        self._deaths: list[str] = []
        self._tokens = 0

    def error_that_ends(self, live: LiveRequest, failure: AttemptFailed) -> PdserveError | None:
        """The error that ends the request; None: it is placed again."""
        self._note_deaths(live, failure)
        if error := failure.final_error():
            return error
        if len(self._deaths) >= _MOST_DEATHS:
            self._metrics.retry_refused("poison")
            names = ", then ".join(self._deaths)
            return UnavailableError(
                f"{names} failed while running this request; it is not sent to a third instance"
            )
        attempts = len(live.attempts)
        if attempts >= self._max_attempts:
            self._metrics.retry_refused("attempts")
            return _exhausted(failure, f"gave up after {attempts} attempts")
        if not self._may_retry(failure):
            self._metrics.retry_refused("budget")
            return _exhausted(failure, "the retry budget is used up: too many attempts fail")
        return None

    def _note_deaths(self, live: LiveRequest, failure: AttemptFailed) -> None:
        """Whoever died before the request entered its device died of something else."""
        tokens, before = len(live.output.token_ids), self._tokens
        self._tokens = tokens
        if tokens - before >= _PROVEN_TOKENS:
            self._deaths.clear()
        dead = [
            each.instance.name
            for each in failure.failures
            if each.cause in _DEADLY and _was_computed(live, each.instance)
        ]
        if dead:
            self._deaths.append(" and ".join(dead))

    def _may_retry(self, failure: AttemptFailed) -> bool:
        if self._free and any(each.cause not in _CHARGED for each in failure.failures):
            self._free = False
            return True
        return self._budget.withdraw()


def _was_computed(live: LiveRequest, instance: Instance) -> bool:
    """Whether the present attempt got into the engine of `instance`."""
    times, remote = live.times, bool(live.attempts[-1].prefill)
    entered = times.admitted if remote and instance.role is Role.DECODE else times.started
    return entered is not None


def _exhausted(failure: AttemptFailed, text: str) -> PdserveError:
    overloaded = all(isinstance(each.error, OverloadedError) for each in failure.failures)
    kind = OverloadedError if overloaded else UnavailableError
    return kind(f"{text}; the last failed: {failure}", retry_after_s=_RETRY_AFTER_S)
