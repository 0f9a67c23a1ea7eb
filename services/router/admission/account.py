"""What a key has used of its limits."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pdserve.errors import InvalidRequestError, OverloadedError
from pdserve.key_limits import Client, KeyLimits
from services.router.admission.pace import Pace
from services.router.admission.token_bucket import TokenBucket

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Allowance:
    """How a limit of rate stands: of `limit` a minute `remaining`, full again in `reset_s`."""

    limit: float
    remaining: float
    reset_s: float


class Account:
    """The limits of one key, and what its requests have used of them.

    Methods raise `OverloadedError`: its field names the limit, and it says when there is enough.
    """

    def __init__(self, limits: KeyLimits, pace: Pace, clock: Clock) -> None:
        self.limits = limits
        self._pace = pace
        self._clock = clock
        self._running = 0
        self._requests = self._bucket(None, limits.requests_per_minute)
        self._tokens = self._bucket(None, limits.tokens_per_minute)

    def change(self, limits: KeyLimits) -> None:
        """Goes on with other limits, and with what is left of those that stay."""
        self.limits = limits
        self._requests = self._bucket(self._requests, limits.requests_per_minute)
        self._tokens = self._bucket(self._tokens, limits.tokens_per_minute)

    def enter(self, runs: int) -> None:
        """Begins `runs` at once, unless so many may not run, or a request would be one too many.

        Raises `InvalidRequestError` where they never may.
        """
        self._check_concurrent(runs)
        _check_rate(self._requests, "requests_per_minute", 1)
        self._running += runs

    def leave(self, runs: int) -> None:
        """As many have ended."""
        self._running -= runs

    def reserve(self, tokens: int) -> None:
        """Takes one request, and the tokens that it may need: both or nothing."""
        _check_rate(self._requests, "requests_per_minute", 1)
        _check_rate(self._tokens, "tokens_per_minute", tokens)
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(tokens)

    def give_back(self, tokens: int) -> None:
        """Of what was reserved, so many were not needed."""
        if self._tokens:
            self._tokens.take(-tokens)

    @property
    def requests(self) -> Allowance | None:
        """How requests_per_minute stands; None: there is no such limit."""
        return _allowance(self._requests)

    @property
    def tokens(self) -> Allowance | None:
        """How tokens_per_minute stands; None: there is no such limit."""
        return _allowance(self._tokens)

    def _check_concurrent(self, runs: int) -> None:
        most = self.limits.concurrent
        if most is None or self._running + runs <= most:
            return
        if runs > most:
            raise InvalidRequestError(
                f"the request asks for {runs} choices at once; the API key may have {most} "
                "(concurrent)",
                field="n",
                limit=str(most),
            )
        excess = self._running + runs - most
        raise OverloadedError(
            f"the API key has {self._running} requests at once; it may have {most} (concurrent)",
            field="concurrent",
            limit=str(most),
            retry_after_s=self._pace.wait_s(excess, self._running),
        )

    def _bucket(self, bucket: TokenBucket | None, per_minute: float | None) -> TokenBucket | None:
        if per_minute is None or bucket is None:
            return None if per_minute is None else TokenBucket(per_minute, self._clock)
        bucket.change(per_minute)
        return bucket


class Accounts:
    """The accounts of all keys that have been shown; as many as there have been names."""

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._pace = pace
        self._clock = clock
        self._by_name: dict[str, Account] = {}

    def of(self, client: Client) -> Account:
        """The account of `client`, with the limits that it has now."""
        account = self._by_name.get(client.name)
        if account is None:
            account = self._by_name[client.name] = Account(client.limits, self._pace, self._clock)
        elif account.limits != client.limits:
            account.change(client.limits)
        return account


def _check_rate(bucket: TokenBucket | None, name: str, amount: int) -> None:
    wait_s = bucket.wait_s(amount) if bucket else 0.0
    if bucket and wait_s:
        needed = f"this request may need {amount}, and " if name == "tokens_per_minute" else ""
        raise OverloadedError(
            f"the API key may use {bucket.per_minute:g} {name}; {needed}"
            f"{math.floor(max(bucket.level, 0.0))} are left",
            field=name,
            limit=f"{bucket.per_minute:g}",
            retry_after_s=wait_s,
        )


def _allowance(bucket: TokenBucket | None) -> Allowance | None:
    if bucket is None:
        return None
    return Allowance(bucket.per_minute, max(bucket.level, 0.0), bucket.refill_s)
