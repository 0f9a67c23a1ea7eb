"""Which of two targets is better at what, and whether that is more than chance."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pdserve.bench.summary import Summary
from pdserve.errors import ConfigError

# Two-sided 95 % quantiles of Student's t distribution for 1, 2, … degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
)  # fmt: skip
MOST_ROUNDS = len(_T95) + 1


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a summary. `ratio`: compared by the quotient, else by the difference."""

    name: str
    value: Callable[[Summary], float]
    lower_is_better: bool = True
    ratio: bool = True
    seconds: bool = True


MEASURES = (
    Measure("TTFT p50", lambda seen: seen.ttft.p50),
    Measure("TTFT p90", lambda seen: seen.ttft.p90),
    Measure("TPOT p50", lambda seen: seen.tpot.p50),
    Measure("TPOT p90", lambda seen: seen.tpot.p90),
    Measure("ITL p99", lambda seen: seen.itl.p99),
    Measure("end to end p50", lambda seen: seen.e2e.p50),
    Measure("output tokens/s", lambda seen: seen.tokens_per_s, False, True, False),
    Measure("attainment", lambda seen: seen.attainment.value, False, False, False),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure over the rounds: medians of both, and of B against A in each round.

    `middle` is the median of B / A, or of B - A; `low` to `high` holds the mean of it with 95 % by
    Student's t (of ratios the geometric mean), taking rounds as independent. `better` is "A", "B"
    or, where the interval holds equality, nobody: "".
    """

    measure: Measure
    a: float
    b: float
    middle: float
    low: float
    high: float
    better: str


def rounds_order(number: int) -> tuple[int, int]:
    """Which of the targets 0 and 1 goes first in a round: A B, B A, A B, …

    So neither is always the one that comes after the other, or later.
    """
    return (0, 1) if number % 2 == 0 else (1, 0)


def check_rounds(rounds: int) -> None:
    """Raises `ConfigError` for a number of rounds that tells nothing of chance."""
    if not 2 <= rounds <= MOST_ROUNDS:
        limit = f"[2, {MOST_ROUNDS}]"
        raise ConfigError(
            f"rounds is {rounds}; it must lie in {limit}", field="rounds", limit=limit
        )


def compare(a: Sequence[Summary], b: Sequence[Summary]) -> list[Compared]:
    """Every measure that both have in at least two rounds; the summaries are in their order."""
    return [compared for measure in MEASURES if (compared := _compared(measure, a, b)) is not None]


def _compared(measure: Measure, a: Sequence[Summary], b: Sequence[Summary]) -> Compared | None:
    values = [(measure.value(one), measure.value(other)) for one, other in zip(a, b, strict=True)]
    floor = 0.0 if measure.ratio else -math.inf
    pairs = [
        (x, y) for x, y in values if math.isfinite(x) and math.isfinite(y) and min(x, y) > floor
    ]
    if len(pairs) < 2:
        return None
    changes = [math.log(y / x) if measure.ratio else y - x for x, y in pairs]
    mean = statistics.fmean(changes)
    half = _T95[len(changes) - 2] * statistics.stdev(changes) / math.sqrt(len(changes))
    back = math.exp if measure.ratio else float
    return Compared(
        measure,
        a=statistics.median(x for x, _ in pairs),
        b=statistics.median(y for _, y in pairs),
        middle=back(statistics.median(changes)),
        low=back(mean - half),
        high=back(mean + half),
        better=_better(measure, mean - half, mean + half),
    )


def _better(measure: Measure, low: float, high: float) -> str:
    if low <= 0 <= high:
        return ""
    return "B" if (high < 0) == measure.lower_is_better else "A"
