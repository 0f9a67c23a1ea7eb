"""What a placer sees of the fleet: plain data, taken at one moment."""

from dataclasses import dataclass

from pdserve.kv.layout import KvLayout


@dataclass(frozen=True, slots=True)
class Load:
    """Work on an instance: its own report, and what the router has sent that none covers yet.

    `tokens` are prompt tokens still to compute on a prefill instance, and tokens of context held by
    running sequences on a decode instance.
    """

    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that accepts requests. `reported_at` is on the router's monotonic clock.

    `max_model_len` is the longest prompt + output in tokens that it can hold; 0: it states none.
    """

    name: str
    incarnation: str
    layout: KvLayout
    max_model_len: int
    load: Load
    reported_at: float

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens can be held at all."""
        return self.max_model_len == 0 or tokens <= self.max_model_len


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
