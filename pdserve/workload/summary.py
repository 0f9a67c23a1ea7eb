"""What a workload looks like, in figures."""

from dataclasses import dataclass

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.shared_prefix import cacheable_tokens
from pdserve.workload.workload import Ints, Workload

# Long enough to see bursts, short enough to see them in a trace of a few hundred requests.
_REQUESTS_A_WINDOW = 10


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Token counts of prompts or outputs."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a workload; None is what it is too short for.

    `arrival_cv` is the coefficient of variation of the times between arrivals, and `dispersion` is
    the variance over the mean of the arrivals in windows of `window_s` seconds: both are 1 for a
    Poisson process, more for bursts. `rate` and tokens per second are means over the duration.
    `shared_prefix` is the share of prompt tokens that a prefix cache that forgets nothing would
    hold, None without prefixes.
    """

    name: str
    requests: int
    duration_s: float
    rate: float | None
    arrival_cv: float | None
    window_s: float | None
    dispersion: float | None
    prompt_tokens: LengthSummary
    output_tokens: LengthSummary
    prompt_tokens_per_s: float | None
    output_tokens_per_s: float | None
    shared_prefix: float | None


def summarize(workload: Workload, window_s: float | None = None) -> Summary:
    """The figures of `workload`.

    `window_s` is the width of the windows of `dispersion`; by default they hold ten requests on
    average, so that stretching a workload leaves the figure as it is. Raises `ConfigError` for a
    width that is not above 0.
    """
    if window_s is not None and not (window_s > 0 and np.isfinite(window_s)):
        text = f"window is {window_s} s; it must be above 0"
        raise ConfigError(text, field="window", limit="> 0")
    rate = workload.rate if workload.duration_s > 0 else None
    if window_s is None and rate is not None:
        window_s = _REQUESTS_A_WINDOW / rate
    prompts, outputs = workload.prompt_tokens, workload.output_tokens
    return Summary(
        name=workload.name,
        requests=len(workload),
        duration_s=workload.duration_s,
        rate=rate,
        arrival_cv=_arrival_cv(workload),
        window_s=window_s,
        dispersion=None if window_s is None else index_of_dispersion(workload, window_s),
        prompt_tokens=_lengths(prompts),
        output_tokens=_lengths(outputs),
        prompt_tokens_per_s=None if rate is None else rate * float(prompts.mean()),
        output_tokens_per_s=None if rate is None else rate * float(outputs.mean()),
        shared_prefix=(
            None
            if workload.prefix is None
            else float(cacheable_tokens(workload).sum() / prompts.sum())
        ),
    )


def index_of_dispersion(workload: Workload, window_s: float) -> float | None:
    """Variance over mean of the number of arrivals in successive windows of `window_s` seconds.

    The index of dispersion for counts (Cox and Lewis, The Statistical Analysis of Series of Events,
    1966). The first window begins at the first arrival, and the last one that is not
    whole is left out. None with fewer than two windows.
    """
    windows = int(workload.duration_s / window_s)
    if windows < 2:
        return None
    window = ((workload.arrival_s - workload.arrival_s[0]) / window_s).astype(np.int64)
    # The windows in which nothing arrives count too, however many there are of them.
    inside = window[window < windows]
    counts = np.unique(inside, return_counts=True)[1].astype(np.float64)
    mean = float(counts.sum()) / windows
    variance = float((counts * counts).sum()) / windows - mean * mean
    return max(variance / mean, 0.0)


def _arrival_cv(workload: Workload) -> float | None:
    gaps = np.diff(workload.arrival_s)
    if len(gaps) < 2 or workload.duration_s == 0:
        return None
    return float(gaps.std() / gaps.mean())


def _lengths(tokens: Ints) -> LengthSummary:
    p50, p90, p99 = np.percentile(tokens, (50, 90, 99)).tolist()
    return LengthSummary(float(tokens.mean()), p50, p90, p99, int(tokens.max()))
