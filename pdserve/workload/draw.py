"""Draws workloads from a specification."""

from dataclasses import dataclass, field

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.arrivals import Arrivals, PoissonArrivals
from pdserve.workload.conversations import Conversations
from pdserve.workload.lengths import RequestLengths
from pdserve.workload.workload import Workload

MAX_REQUESTS = 100_000_000


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """What to draw: `requests` requests that arrive by `arrivals` and are as long as `lengths`.

    `rate` is the mean in requests per second; None is the process's own. With `conversations`,
    the prompt lengths are those of the questions that each turn adds. Raises `ConfigError` for
    values out of range.
    """

    requests: int
    lengths: RequestLengths
    arrivals: Arrivals = field(default_factory=PoissonArrivals)
    rate: float | None = None
    conversations: Conversations | None = None
    seed: int = 0
    name: str = "drawn"

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= MAX_REQUESTS:
            limit = f"[1, {MAX_REQUESTS}]"
            text = f"requests is {self.requests}; it must lie in {limit}"
            raise ConfigError(text, field="requests", limit=limit)
        if self.rate is not None and not (self.rate > 0 and np.isfinite(self.rate)):
            text = f"rate is {self.rate}; it must be above 0"
            raise ConfigError(text, field="rate", limit="> 0")
        check_seed(self.seed)


def draw_workload(spec: WorkloadSpec) -> Workload:
    """The workload that `spec` describes, the same one for the same spec.

    Arrivals, lengths and conversations have random streams of their own: another arrival process
    leaves the requests as they are.
    """
    seeds = np.random.SeedSequence(spec.seed).spawn(3)
    for_arrivals, for_lengths, for_conversations = map(np.random.default_rng, seeds)
    rate = spec.arrivals.default_rate if spec.rate is None else spec.rate
    arrivals = spec.arrivals.draw(for_arrivals, spec.requests, rate)
    prompts, outputs = spec.lengths.draw(for_lengths, spec.requests)
    if spec.conversations is None:
        return Workload(spec.name, arrivals, prompts, outputs)
    prompts, prefix, conversation = spec.conversations.converse(
        for_conversations, rate, prompts, outputs
    )
    return Workload(spec.name, arrivals, prompts, outputs, prefix, conversation)


def check_seed(seed: int) -> None:
    """Raises `ConfigError` for a seed below 0, which numpy does not take."""
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0", field="seed", limit=">= 0")
