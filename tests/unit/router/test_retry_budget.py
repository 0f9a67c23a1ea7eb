"""How many retries there are, for one request and for all together."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from pdserve import errors
from pdserve.cluster.instance import Role
from services.router.failure import LOST, PROTOCOL, SILENT, AttemptFailed, InstanceFailure
from services.router.metrics import RouterMetrics
from services.router.retries import Retries
from services.router.retry_budget import RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def withdrawals(budget: RetryBudget) -> int:
    count = 0
    while budget.withdraw():
        count += 1
    return count


def test_a_quiet_router_may_retry() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    assert withdrawals(budget) == 10
    clock.now += 3
    assert withdrawals(budget) == 3
    clock.now += 3600
    assert withdrawals(budget) == 10


def test_retries_are_a_share_of_the_requests() -> None:
    budget = RetryBudget(0.25, Clock())
    withdrawals(budget)
    for _ in range(80):
        budget.deposit()
    assert withdrawals(budget) == 20


def test_good_times_do_not_pay_for_a_storm() -> None:
    budget = RetryBudget(0.2, Clock())
    for _ in range(100_000):
        budget.deposit()
    assert withdrawals(budget) == 100


@given(
    share=st.floats(0, 2),
    events=st.lists(st.sampled_from(("request", "retry", "second")), max_size=200),
)
def test_there_are_never_more_than_the_share_and_the_reserve(share: float, events) -> None:
    clock = Clock()
    budget = RetryBudget(share, clock)
    granted = requests = 0
    for event in events:
        if event == "request":
            budget.deposit()
            requests += 1
        elif event == "second":
            clock.now += 1
        else:
            granted += budget.withdraw()
    assert granted <= 10 + share * requests + clock.now + 1e-6


# --- one request


def instance(name: str, role: Role = Role.DECODE):
    return SimpleNamespace(name=name, role=role, incarnation=name)


def failed(*failures: tuple[str, str, Role]) -> AttemptFailed:
    """An attempt that failed by (cause, name, role)."""
    kinds = {
        "overloaded": errors.OverloadedError,
        "transfer_failed": errors.TransferError,
        "engine_failed": errors.EngineError,
        "internal": errors.PdserveError,
        "invalid_argument": errors.InvalidRequestError,
    }
    return AttemptFailed(
        [
            InstanceFailure(
                instance(name, role), kinds.get(cause, errors.UnavailableError)(""), cause
            )
            for cause, name, role in failures
        ]
    )


def death(name: str = "decode-0", role: Role = Role.DECODE) -> AttemptFailed:
    return failed((LOST, name, role))


def of(cause: str) -> AttemptFailed:
    return failed((cause, "decode-0", Role.DECODE))


class Request:
    """A request as far as `Retries` looks at it."""

    def __init__(self, budget: RetryBudget, max_attempts: int = 4) -> None:
        self.registry = CollectorRegistry()
        self.retries = Retries(budget, max_attempts, RouterMetrics(self.registry))
        self.tokens = 0
        self.attempts = 0

    def fails(
        self,
        failure: AttemptFailed,
        *,
        tokens: int = 0,
        started: bool = True,
        admitted: bool = True,
        remote: bool = True,
    ) -> errors.PdserveError | None:
        self.tokens += tokens
        self.attempts += 1
        live = SimpleNamespace(
            output=SimpleNamespace(token_ids=[0] * self.tokens),
            attempts=[SimpleNamespace(prefill="prefill-0" if remote else "")] * self.attempts,
            times=SimpleNamespace(
                started=1.0 if started else None, admitted=1.0 if admitted else None
            ),
        )
        return self.retries.error_that_ends(live, failure)

    def refused(self, why: str) -> float:
        name = "pdserve_router_retries_refused_total"
        return self.registry.get_sample_value(name, {"why": why}) or 0.0


def empty() -> RetryBudget:
    budget = RetryBudget(0.0, Clock())
    withdrawals(budget)
    return budget


@pytest.mark.parametrize("cause", [LOST, SILENT, "unavailable", "engine_failed", "transfer_failed"])
def test_when_an_instance_dies_all_that_ran_there_may_move_at_once(cause: str) -> None:
    budget = empty()
    for _ in range(200):
        assert Request(budget).fails(of(cause)) is None


def test_the_second_retry_is_paid_for() -> None:
    request = Request(empty())
    assert request.fails(of("unavailable")) is None
    error = request.fails(of("unavailable"))
    assert isinstance(error, errors.UnavailableError)
    assert "retry budget is used up" in str(error)
    assert error.retry_after_s > 0
    assert request.refused("budget") == 1


@pytest.mark.parametrize("cause", ["overloaded", "internal", PROTOCOL])
def test_for_other_causes_even_the_first_is(cause: str) -> None:
    assert Request(empty()).fails(of(cause)) is not None
    assert Request(RetryBudget(0.2, Clock())).fails(of(cause)) is None


def test_a_retry_that_was_paid_for_leaves_the_free_one() -> None:
    budget = RetryBudget(0.0, Clock())
    request = Request(budget)
    assert request.fails(of("overloaded")) is None
    withdrawals(budget)
    assert request.fails(death()) is None
    assert request.fails(of("unavailable")) is not None


def test_without_budget_an_overloaded_fleet_still_says_that_it_is() -> None:
    assert isinstance(Request(empty()).fails(of("overloaded")), errors.OverloadedError)


def test_a_storm_at_most_doubles_the_work() -> None:
    """Everything fails, always: what is tried again is bounded whatever the requests do."""
    budget = RetryBudget(0.2, Clock())
    attempts = 0
    for _ in range(1000):
        budget.deposit()
        request = Request(budget)
        while request.fails(of("unavailable")) is None:
            pass
        attempts += request.attempts
    assert attempts <= 1000 * (2 + 0.2) + 10


def test_a_request_on_which_two_instances_died_gets_no_third() -> None:
    request = Request(RetryBudget(1.0, Clock()))
    assert request.fails(death("prefill-0", Role.PREFILL)) is None
    error = request.fails(failed(("engine_failed", "decode-1", Role.DECODE)), tokens=1)
    assert isinstance(error, errors.UnavailableError)
    assert "prefill-0, then decode-1" in str(error)
    assert request.refused("poison") == 1


def test_two_deaths_at_one_moment_are_one() -> None:
    request = Request(RetryBudget(1.0, Clock()))
    both = failed((LOST, "prefill-0", Role.PREFILL), (LOST, "decode-0", Role.DECODE))
    assert request.fails(both) is None
    assert "prefill-0 and decode-0, then decode-1" in str(request.fails(death("decode-1")))


def test_an_instance_that_had_not_begun_with_it_did_not_die_of_it() -> None:
    request = Request(RetryBudget(1.0, Clock()), max_attempts=math.inf)
    for number in range(5):
        waiting = death(f"prefill-{number}", Role.PREFILL)
        assert request.fails(waiting, started=False, admitted=False) is None
        not_bound = death(f"decode-{number}")
        assert request.fails(not_bound, started=True, admitted=False) is None
    # Alone on decode, it begins with the prefill.
    assert request.fails(death("decode-8"), admitted=False, remote=False) is None
    assert request.fails(death("decode-9"), admitted=False, remote=False) is not None


def test_a_request_that_got_far_on_the_second_instance_is_no_poison() -> None:
    request = Request(RetryBudget(1.0, Clock()))
    assert request.fails(death("decode-0"), tokens=50) is None
    assert request.fails(death("decode-1"), tokens=50) is None
    assert "decode-1, then decode-2" in str(request.fails(death("decode-2"), tokens=3))


def test_silence_is_no_proof_of_a_death() -> None:
    request = Request(RetryBudget(1.0, Clock()))
    assert request.fails(of(SILENT)) is None
    assert request.fails(of(SILENT), tokens=1) is None
    assert request.fails(death("decode-1"), tokens=1) is None
    assert request.refused("poison") == 0


def test_attempts_are_bounded_whatever_the_budget() -> None:
    request = Request(RetryBudget(10.0, Clock()), max_attempts=3)
    assert request.fails(of("unavailable")) is request.fails(of("unavailable")) is None
    assert "gave up after 3 attempts" in str(request.fails(of("unavailable")))
    assert request.refused("attempts") == 1


def test_what_every_instance_would_answer_ends_it_at_once() -> None:
    request = Request(RetryBudget(1.0, Clock()))
    assert isinstance(request.fails(of("invalid_argument")), errors.InvalidRequestError)
