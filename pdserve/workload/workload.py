"""A workload: requests in the order of their arrival, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pdserve.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixBlocks:
    """Which blocks of `block_tokens` tokens each prompt begins with: equal ids, equal prefix.

    Request `i` has the blocks `ids[offsets[i] : offsets[i + 1]]`. Ids count from 0 to `count - 1`.
    """

    offsets: Ints
    ids: Ints
    block_tokens: int

    @property
    def count(self) -> int:
        """How many different blocks there are."""
        return int(self.ids.max()) + 1 if len(self.ids) else 0

    def take(self, indices: Ints) -> "PrefixBlocks":
        """The blocks of the requests at `indices`, in that order."""
        lengths = (self.offsets[1:] - self.offsets[:-1])[indices]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        starts = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths)
        return PrefixBlocks(offsets, self.ids[starts + np.arange(offsets[-1])], self.block_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests by arrival: `arrival_s`, `prompt_tokens` and `output_tokens`, `[requests]` each.

    `conversation` says which conversation each is the next turn of, -1 where it is a turn of none;
    None where nothing is known of conversations. Raises `ConfigError` unless the columns are as
    long as each other, arrivals are sorted and every request has a prompt and an output.
    """

    name: str
    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    prefix: PrefixBlocks | None = None
    conversation: Ints | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.arrival_s), len(self.prompt_tokens), len(self.output_tokens)}
        if self.conversation is not None:
            sizes.add(len(self.conversation))
        if len(sizes) != 1 or not len(self.arrival_s):
            raise ConfigError(f"{self.name}: a workload needs at least one request", field="trace")
        if not np.all(np.isfinite(self.arrival_s)) or np.any(np.diff(self.arrival_s) < 0):
            raise ConfigError(f"{self.name}: arrivals must be finite and sorted", field="trace")
        if self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1:
            raise ConfigError(
                f"{self.name}: prompts and outputs have at least one token", field="trace"
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def rate(self) -> float:
        """Requests per second: arrivals after the first over the duration; infinite for a burst."""
        return (len(self) - 1) / self.duration_s if self.duration_s > 0 else float("inf")

    def at_rate(self, rate: float) -> "Workload":
        """The same requests with arrivals stretched to `rate` requests per second.

        A burst, which has no rate of its own, is returned as it is.
        """
        if not (rate > 0 and np.isfinite(rate)):
            raise ConfigError(f"rate is {rate}; it must be above 0", field="rate", limit="> 0")
        if self.duration_s == 0:
            return self
        first = self.arrival_s[0]
        return replace(self, arrival_s=(self.arrival_s - first) * (self.rate / rate))

    def take(self, indices: Sequence[int] | Ints | slice) -> "Workload":
        """The requests at `indices`, which must be sorted."""
        chosen = np.arange(len(self))[indices]
        return replace(
            self,
            arrival_s=self.arrival_s[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            prefix=self.prefix.take(chosen) if self.prefix else None,
            conversation=None if self.conversation is None else self.conversation[chosen],
        )
