"""How much work an instance has, as it reports it."""

from dataclasses import dataclass

from pdserve.scheduling.urgency import Priority


@dataclass(frozen=True, slots=True)
class QueuedWork:
    """Prefill work of one priority that is not done yet.

    `squares` is Σ ((past + new)² − past²) over the requests, with `past` tokens computed and `new`
    ones to compute; see `pdserve.latency.cost.PrefillCost`.
    """

    priority: Priority
    requests: int
    tokens: int
    squares: int


@dataclass(frozen=True, slots=True)
class SchedulerLoad:
    """How much there is to do.

    `queued` is the prefill work of waiting and of running sequences, the highest priority first;
    its tokens add up to `waiting_tokens`. `decoding` counts admitted sequences whose tokens are
    generated here, those that still load or prefill among them. `tpot_limit_s` is the strictest
    TPOT objective of all live sequences; 0 where none has one.
    """

    waiting: int = 0
    loading: int = 0
    running: int = 0
    held: int = 0
    decoding: int = 0
    waiting_tokens: int = 0
    context_tokens: int = 0
    queued: tuple[QueuedWork, ...] = ()
    tpot_limit_s: float = 0.0


class PrefillWork:
    """Running totals of prefill work by priority, in whole numbers: they never drift."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys(sorted(Priority, reverse=True), (0, 0, 0))

    def copy(self) -> "PrefillWork":
        """The same totals, to go on from."""
        other = PrefillWork()
        other._totals = self._totals.copy()
        return other

    def add(self, priority: Priority, past: int, new: int) -> None:
        """Counts a request of which `new` tokens follow `past` computed ones."""
        requests, tokens, squares = self._totals[priority]
        square = new * (2 * past + new)
        self._totals[priority] = (requests + 1, tokens + new, squares + square)

    def remove(self, priority: Priority, past: int, new: int) -> None:
        """Takes back what `add` counted."""
        requests, tokens, squares = self._totals[priority]
        square = new * (2 * past + new)
        self._totals[priority] = (requests - 1, tokens - new, squares - square)

    def queued(self) -> tuple[QueuedWork, ...]:
        """The classes that have work, the highest first."""
        return tuple(
            QueuedWork(priority, *totals) for priority, totals in self._totals.items() if totals[0]
        )
