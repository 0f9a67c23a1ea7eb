"""Limits of API keys: what they count, and when there is enough again."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.errors import InvalidRequestError, OverloadedError
from pdserve.key_limits import Client, KeyLimits
from services.router.admission.account import Account, Accounts, Allowance
from services.router.admission.pace import Pace
from services.router.admission.token_bucket import TokenBucket
from services.router.admission.visit import Visit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    per_minute=st.floats(1, 1e9),
    amounts=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 90)), min_size=1, max_size=20),
)
def test_no_more_is_used_than_the_rate_and_one_burst(per_minute: float, amounts) -> None:
    """Whoever waits for as long as is said gets what was asked for, and nobody gets more."""
    clock = Clock()
    bucket = TokenBucket(per_minute, clock)
    begin, used, largest = clock.now, 0.0, 0.0
    for share, pause_s in amounts:
        clock.now += pause_s
        amount = share * per_minute
        clock.now += bucket.wait_s(amount)
        assert bucket.wait_s(amount) == 0
        bucket.take(amount)
        used += amount
        largest = max(largest, amount)
        refilled = (clock.now - begin) / 60 * per_minute
        assert used <= (per_minute + refilled + largest) * (1 + 1e-6)
    clock.now += bucket.refill_s
    assert bucket.level == pytest.approx(per_minute)


def test_a_wait_is_as_long_as_it_must_be() -> None:
    clock = Clock()
    bucket = TokenBucket(60, clock)
    bucket.take(60)
    assert bucket.wait_s(30) == pytest.approx(30)
    clock.now += 29
    assert bucket.wait_s(30) == pytest.approx(1)
    clock.now += 1
    assert bucket.wait_s(30) == 0
    assert bucket.wait_s(1000) == bucket.wait_s(60) == pytest.approx(30)


def account(**limits) -> tuple[Account, Clock]:
    clock = Clock()
    return Account(KeyLimits(**limits), Pace(), clock), clock


def test_requests_per_minute() -> None:
    it, clock = account(requests_per_minute=2)
    for _ in range(2):
        it.enter(1)
        it.reserve(1)
        it.leave(1)
    for ask in (lambda: it.enter(1), lambda: it.reserve(1)):
        with pytest.raises(OverloadedError, match="2 requests_per_minute; 0 are left") as refused:
            ask()
        assert (refused.value.field, refused.value.limit) == ("requests_per_minute", "2")
        assert refused.value.retry_after_s == pytest.approx(30)
    assert it.requests == Allowance(2, 0, pytest.approx(60))
    clock.now += 30
    it.enter(1)
    it.reserve(1)


def test_tokens_per_minute_are_those_that_were_used() -> None:
    it, clock = account(tokens_per_minute=600, requests_per_minute=100)
    it.reserve(500)
    with pytest.raises(OverloadedError, match="may need 200, and 100 are left") as refused:
        it.reserve(200)
    assert refused.value.field == "tokens_per_minute"
    assert refused.value.retry_after_s == pytest.approx(10)
    assert it.requests.remaining == 99  # what was refused has taken nothing of the other limit
    it.give_back(150)
    it.reserve(200)
    assert it.tokens == Allowance(600, pytest.approx(50), pytest.approx(55))
    clock.now += 60
    it.reserve(5000)  # more than a minute's: from a full bucket, and the next waits for longer
    with pytest.raises(OverloadedError) as refused:
        it.reserve(1)
    assert refused.value.retry_after_s == pytest.approx(440.1)


def test_concurrent_requests_are_those_that_wait_and_run() -> None:
    pace = Pace()
    it = Account(KeyLimits(concurrent=3), pace, Clock())
    pace.ended(6.0)
    it.enter(2)
    with pytest.raises(OverloadedError, match=r"has 2 requests at once; it may have 3") as refused:
        it.enter(2)
    assert (refused.value.field, refused.value.limit) == ("concurrent", "3")
    assert refused.value.retry_after_s == pytest.approx(3.0)  # one of two, of 6 s each
    with pytest.raises(InvalidRequestError, match="4 choices at once; the API key may have 3"):
        it.enter(4)
    it.leave(2)
    it.enter(3)


def test_a_key_goes_on_with_what_it_has_used_when_its_limits_change() -> None:
    clock = Clock()
    accounts = Accounts(Pace(), clock)

    def of(**limits) -> Account:
        return accounts.of(Client("alice", KeyLimits(**limits)))

    of(tokens_per_minute=100, concurrent=1).reserve(100)
    assert of(tokens_per_minute=100, concurrent=2).tokens.remaining == 0
    assert of(tokens_per_minute=200).tokens.remaining == 0
    assert of(requests_per_minute=5).tokens is None
    assert of(tokens_per_minute=50).tokens.remaining == 50
    assert accounts.of(Client("bob")) is not of()


async def test_the_runs_of_a_request_are_let_in_together_or_not_at_all() -> None:
    it, _ = account(tokens_per_minute=100, requests_per_minute=5, concurrent=3)
    it.reserve(20)

    def arrive(tokens: int) -> tuple[Visit, list[asyncio.Task]]:
        visit = Visit(Client(), it, runs=3)
        for _ in range(3):
            visit.enter()
        return visit, [asyncio.create_task(visit.reserve(tokens)) for _ in range(3)]

    visit, runs = arrive(30)
    (refused,), waiting = await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(refused.exception(), OverloadedError)
    assert (it.tokens.remaining, it.requests.remaining) == (80, 4)
    for run in waiting:
        run.cancel()
    visit.leave()
    _, runs = arrive(20)
    await asyncio.gather(*runs)
    assert (it.tokens.remaining, it.requests.remaining) == (20, 3)


async def test_a_run_that_is_cancelled_as_it_is_let_in_keeps_no_tokens() -> None:
    it, _ = account(tokens_per_minute=100)
    visit = Visit(Client(), it, runs=2)
    lost, last = (asyncio.create_task(visit.reserve(30)) for _ in range(2))
    await asyncio.sleep(0)  # the last has reserved for both, of which the other is yet to hear
    assert last.done()
    assert it.tokens.remaining == 40
    lost.cancel()
    await asyncio.wait({lost})
    assert lost.cancelled()
    visit.settle(30, used=10)
    visit.leave()
    visit.leave()
    assert it.tokens.remaining == 90


def test_a_visit_that_was_refused_leaves_nothing() -> None:
    it, _ = account(concurrent=1)
    first, second = Visit(Client(), it), Visit(Client(), it)
    first.enter()
    with pytest.raises(OverloadedError):
        second.enter()
    second.leave()
    first.leave()
    first.leave()
    Visit(Client(), it).enter()
