"""What a placer sees of the fleet: plain data, taken at one moment."""

import math
from dataclasses import dataclass

from pdserve.kv.layout import KvLayout
from pdserve.latency.cost import InstanceCost


@dataclass(frozen=True, slots=True)
class Work:
    """Prefill work: tokens, and squares as `pdserve.latency.cost.PrefillCost` counts them."""

    tokens: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.tokens + other.tokens, self.squares + other.squares)


# By priority, from the highest.
Works = tuple[Work, Work, Work]
NO_WORK: Works = (Work(), Work(), Work())


@dataclass(frozen=True, slots=True)
class Load:
    """Work on an instance: its own report, and what the router has sent that none covers yet.

    `tokens` are prompt tokens still to compute on a prefill instance, and tokens of context held by
    running sequences on a decode instance; with `waiting_tokens` that wait for memory or a chunk.
    `reported` is prefill work of the report and `dispatched` what came after it, by priority.
    `free_tokens` is what fits in the KV blocks that are free or can be evicted. `tpot_limit_s` is
    the strictest TPOT objective of the requests there, 0 where none has one.
    """

    requests: int
    tokens: int
    decoding: int = 0
    waiting_tokens: int = 0
    free_tokens: float = math.inf
    tpot_limit_s: float = 0.0
    reported: Works = NO_WORK
    dispatched: Works = NO_WORK


@dataclass(frozen=True, slots=True)
class Limits:
    """What never changes in one life of an instance; 0: it states none."""

    batch_tokens: int = 0
    batch_seqs: int = 0
    layer_groups: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that accepts requests. `reported_at` is on the router's monotonic clock.

    `max_model_len` is the longest prompt + output in tokens that it can hold; 0: it states none.
    `cost` is what its passes cost, None while that is not known.
    """

    name: str
    incarnation: str
    layout: KvLayout
    max_model_len: int
    load: Load
    reported_at: float
    limits: Limits = Limits()
    cost: InstanceCost | None = None


@dataclass(frozen=True, slots=True)
class FleetView:
    """The instances that accept requests, and in words why the others do not."""

    prefill: tuple[Candidate, ...]
    decode: tuple[Candidate, ...]
    absent: tuple[str, ...] = ()

    @property
    def context_limit(self) -> int:
        """Longest prompt + output that any decode instance here can hold; 0: none states one."""
        limits = [candidate.max_model_len for candidate in self.decode]
        return max(limits) if limits and all(limits) else 0
