"""Distributions of prompt and output lengths, drawn with a seeded generator."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.columns import MAX_TOKENS
from pdserve.workload.workload import Floats, Ints, Workload

# The 99th percentile of the standard normal distribution.
_Z99 = 2.3263478740408408


class Lengths(Protocol):
    """A distribution of token counts."""

    def draw(self, rng: np.random.Generator, requests: int) -> Ints:
        """Tokens, `[requests]`, each at least 1."""
        ...


class RequestLengths(Protocol):
    """A distribution of prompt and output together."""

    def draw(self, rng: np.random.Generator, requests: int) -> tuple[Ints, Ints]:
        """Prompt and output tokens, `[requests]` each, at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class FixedLengths:
    """Always `tokens`. Raises `ConfigError` unless that is from 1 to `MAX_TOKENS`."""

    tokens: int

    def __post_init__(self) -> None:
        _check_tokens("tokens", self.tokens)

    def draw(self, rng: np.random.Generator, requests: int) -> Ints:  # noqa: ARG002 - as every distribution
        """See `Lengths.draw`."""
        return np.full(requests, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class UniformLengths:
    """Every length from `low` to `high`, both included, is as likely.

    Raises `ConfigError` unless 1 <= low <= high <= `MAX_TOKENS`.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_tokens("low", self.low)
        _check_tokens("high", self.high)
        if self.low > self.high:
            text = f"low is {self.low}; it must be at most high, {self.high}"
            raise ConfigError(text, field="lengths", limit=f"<= {self.high}")

    def draw(self, rng: np.random.Generator, requests: int) -> Ints:
        """See `Lengths.draw`."""
        return rng.integers(self.low, self.high, requests, endpoint=True)


@dataclass(frozen=True, slots=True)
class LognormalLengths:
    """Lengths with a normal logarithm: `mean` tokens, and `sigma` of the natural logarithm.

    Drawn values are rounded and at least 1, so that a mean of a few tokens comes out larger. Raises
    `ConfigError` unless mean >= 1 and sigma > 0.
    """

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        if not 1 <= self.mean <= MAX_TOKENS:
            text = f"mean is {self.mean}; it must lie in [1, {MAX_TOKENS}]"
            raise ConfigError(text, field="lengths", limit=f"[1, {MAX_TOKENS}]")
        if not (self.sigma > 0 and np.isfinite(self.sigma)):
            text = f"sigma is {self.sigma}; it must be above 0"
            raise ConfigError(text, field="lengths", limit="> 0")

    @classmethod
    def from_percentiles(cls, p50: float, p99: float) -> "LognormalLengths":
        """The distribution with this median and 99th percentile.

        Raises `ConfigError` unless 1 <= p50 < p99.
        """
        if not 1 <= p50 < p99 <= MAX_TOKENS:
            text = f"p50 is {p50} and p99 is {p99}; they must be 1 <= p50 < p99 <= {MAX_TOKENS}"
            raise ConfigError(text, field="lengths", limit="1 <= p50 < p99")
        sigma = float(np.log(p99 / p50)) / _Z99
        return cls(float(p50 * np.exp(sigma * sigma / 2)), sigma)

    def draw(self, rng: np.random.Generator, requests: int) -> Ints:
        """See `Lengths.draw`."""
        mu = np.log(self.mean) - self.sigma * self.sigma / 2
        return _whole(rng.lognormal(mu, self.sigma, requests))


@dataclass(frozen=True, slots=True)
class IndependentLengths:
    """The output's length does not depend on the prompt's."""

    prompt: Lengths
    output: Lengths

    def draw(self, rng: np.random.Generator, requests: int) -> tuple[Ints, Ints]:
        """See `RequestLengths.draw`."""
        return self.prompt.draw(rng, requests), self.output.draw(rng, requests)


@dataclass(frozen=True, slots=True)
class EmpiricalLengths:
    """Requests of `workload` drawn with replacement: prompt and output stay together."""

    workload: Workload

    def draw(self, rng: np.random.Generator, requests: int) -> tuple[Ints, Ints]:
        """See `RequestLengths.draw`."""
        drawn = rng.integers(0, len(self.workload), requests)
        return self.workload.prompt_tokens[drawn], self.workload.output_tokens[drawn]


def _whole(lengths: Floats) -> Ints:
    return np.clip(np.rint(lengths), 1, MAX_TOKENS).astype(np.int64)


def _check_tokens(name: str, tokens: int) -> None:
    if not 1 <= tokens <= MAX_TOKENS:
        limit = f"[1, {MAX_TOKENS}]"
        text = f"{name} is {tokens}; it must lie in {limit}"
        raise ConfigError(text, field="lengths", limit=limit)
