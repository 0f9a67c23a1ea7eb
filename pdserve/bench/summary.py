"""What a run's records come to."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pdserve.bench.open_loop import Run
from pdserve.bench.record import Outcome, Record
from pdserve.bench.wilson import wilson_interval
from pdserve.planner.slo import Slo

# Later than this is not when it was due, and more of a core than this leaves none for a burst.
_LATE_S = 0.02
_BUSY = 0.85
_MOST_REASONS = 5


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and percentiles in seconds; NaN where there are no values."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Distribution":
        """Of the values that are numbers."""
        array = np.fromiter(values, np.float64)
        array = array[~np.isnan(array)]
        if not len(array):
            return cls(0, *[math.nan] * 6)
        p50, p90, p95, p99 = np.percentile(array, (50, 90, 95, 99)).tolist()
        return cls(len(array), float(array.mean()), p50, p90, p95, p99, float(array.max()))


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `trials`, with the interval that holds the true share with 95 %."""

    hits: int
    trials: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, trials: int) -> "Share":
        """With Wilson's interval."""
        return cls(hits, trials, *wilson_interval(hits, trials))

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.hits / self.trials if self.trials else math.nan


@dataclass(frozen=True, slots=True)
class Generator:
    """What the generator itself had to do with it."""

    lag: Distribution
    cpu: float
    limited: int
    peak_in_flight: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the figures may say more about the generator than about the server."""
        found = []
        if self.limited:
            found.append(
                f"generator limited: {self.limited:,} requests were not sent, because "
                "--max-in-flight others were still running; they count nowhere"
            )
        if self.lag.p99 > _LATE_S:
            found.append(
                f"generator late: 1% of the requests went out over {self.lag.p99 * 1e3:,.0f} ms "
                "after they were due"
            )
        if self.cpu > _BUSY:
            found.append(
                f"generator busy: it took {self.cpu:.0%} of a core, so that times are its own too; "
                "share the load between several"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run, or of several alike.

    `rate` is how many requests per second were asked for, `sent_rate` how many were sent in the
    time in which they were due. Attainment is of those sent, and of those that were not rejected.
    `goodput` is how many per second of that time met both SLOs; throughput is over the time until
    the last answer. What there is no figure for is NaN.
    """

    target: str
    rate: float
    requests: int
    outcomes: Mapping[Outcome, int]
    reasons: Sequence[tuple[str, int]]
    sent_rate: float
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2e: Distribution
    attainment: Share
    admitted: Share
    ttft_attainment: Share
    tpot_attainment: Share
    goodput: float
    requests_per_s: float
    tokens_per_s: float
    prompt_tokens: float
    output_tokens: float
    short_outputs: int
    cached_share: float
    answers_missed: int
    generator: Generator

    @property
    def rejected(self) -> int:
        """Requests that the server refused because it had too much to do."""
        return self.outcomes.get("rejected", 0)


def summarize(rate: float, runs: Sequence[Run], slo: Slo) -> Summary:
    """The figures of `runs`, which are of one target at one `rate`."""
    records = [record for run in runs for record in run.records]
    sent = [record for record in records if record.measured]
    answered = [record for record in sent if record.outcome == "ok"]
    outcomes = Counter(record.outcome for record in records)
    reasons = Counter(
        record.reason for record in records if record.outcome not in ("ok", "limited")
    )
    met = sum(record.met(slo) for record in sent)
    due_s = sum(_due_window(run, rate) for run in runs)
    sent_rate = len(sent) / due_s if due_s > 0 else math.nan
    elapsed = sum(_until_last(run) for run in runs)
    attainment = Share.of(met, len(sent))
    return Summary(
        target=runs[0].target,
        rate=rate,
        requests=len(records),
        outcomes=dict(outcomes),
        reasons=reasons.most_common(_MOST_REASONS),
        sent_rate=sent_rate,
        ttft=Distribution.of(record.ttft_s for record in answered),
        tpot=Distribution.of(record.tpot_s for record in answered),
        itl=Distribution.of(gap for record in answered for gap in record.gaps_s),
        e2e=Distribution.of(record.e2e_s for record in answered),
        attainment=attainment,
        admitted=Share.of(met, len(sent) - outcomes["rejected"]),
        ttft_attainment=Share.of(sum(r.met(Slo(ttft_s=slo.ttft_s)) for r in sent), len(sent)),
        tpot_attainment=Share.of(sum(r.met(Slo(tpot_s=slo.tpot_s)) for r in sent), len(sent)),
        goodput=attainment.value * sent_rate,
        requests_per_s=len(answered) / elapsed if elapsed else math.nan,
        tokens_per_s=sum(r.output_tokens for r in sent) / elapsed if elapsed else math.nan,
        prompt_tokens=_mean(_prompt_tokens(record) for record in answered),
        output_tokens=_mean(record.output_tokens for record in answered),
        short_outputs=sum(record.output_tokens < record.asked_tokens for record in answered),
        cached_share=_cached_share(answered),
        answers_missed=sum(record.answer_missed for record in sent),
        generator=Generator(
            lag=Distribution.of(record.lag_s for record in sent),
            cpu=float(np.average([run.cpu for run in runs], weights=[r.elapsed_s for r in runs])),
            limited=outcomes["limited"],
            peak_in_flight=max(run.peak_in_flight for run in runs),
        ),
    )


def _due_window(run: Run, rate: float) -> float:
    """The time in which requests were due, seconds; the last one has its share of it too."""
    count = len(run.records)
    if count < 2:
        return count / rate
    return (run.records[-1].due_s - run.records[0].due_s) * count / (count - 1)


def _until_last(run: Run) -> float:
    """Until the last token came, seconds; the whole run where some request was not answered."""
    ends = [r.sent_s + r.e2e_s if r.outcome == "ok" else run.elapsed_s for r in run.records]
    return min(run.elapsed_s, max(ends, default=0.0))


def _prompt_tokens(record: Record) -> int:
    return record.prompt_tokens if record.counted_tokens is None else record.counted_tokens


def _cached_share(answered: Sequence[Record]) -> float:
    """Prompt tokens that the server had in its prefix cache; NaN where it does not say."""
    known = [record for record in answered if record.cached_tokens is not None]
    total = sum(_prompt_tokens(record) for record in known)
    return sum(record.cached_tokens or 0 for record in known) / total if total else math.nan


def _mean(values: Iterable[float]) -> float:
    array = np.fromiter(values, np.float64)
    return float(array.mean()) if len(array) else math.nan
