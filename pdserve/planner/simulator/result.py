"""What a simulation has shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdserve.planner.simulator.state import Array
from pdserve.planner.slo import Slo

Floats = NDArray[np.float64]
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True, eq=False)
class InstanceUse:
    """How an instance was used: `busy` and `kv_peak` are shares, the timelines `[slices]`."""

    busy: float
    kv_peak: float
    preemptions: int
    queued: Array
    running: Array
    kv_used: Array


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Times by request, `[requests]` in seconds; NaN where it did not come to that.

    `ttft_s` is arrival to first token: `queue_s` until prefill began, the rest computing. `tpot_s`
    is the mean gap between tokens after the first, 0 for a request without any. `handoff_s` is from
    the first token until all KV was on decode, of which `admission_s` was waiting for blocks there.
    `refused` requests fit no instance. `sent_bytes` is by link.
    """

    ttft_s: Floats
    tpot_s: Floats
    queue_s: Floats
    handoff_s: Floats
    admission_s: Floats
    finished_s: Floats
    preemptions: Array
    cached_tokens: Array
    prefill_on: Array
    decode_on: Array
    refused: int
    stopped_early: bool
    slice_s: float
    instances: tuple[InstanceUse, ...]
    sent_bytes: Floats
    end_s: float
    wall_s: float

    def __len__(self) -> int:
        return len(self.ttft_s)

    def attained(self, slo: Slo) -> NDArray[np.bool_]:
        """Which requests meet both bounds, `[requests]`."""
        return (self.ttft_s <= slo.ttft_s) & (self.tpot_s <= slo.tpot_s)

    def attainment(self, slo: Slo) -> float:
        """The share of all requests that meet both bounds; refused ones do not."""
        return float(np.count_nonzero(self.attained(slo))) / len(self)

    def meets(self, slo: Slo) -> bool:
        """Whether the target share of requests meets both bounds."""
        return not self.stopped_early and self.attainment(slo) >= slo.attainment

    def percentiles(self, seconds: Floats) -> Mapping[str, float]:
        """p50, p90 and p99 in milliseconds of those that are known; NaN where none is."""
        known = seconds[np.isfinite(seconds)]
        if not len(known):
            return {f"p{p}": math.nan for p in PERCENTILES}
        values = np.percentile(known, PERCENTILES) * 1e3
        return {f"p{p}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}

    def summary(self, slo: Slo) -> dict[str, Any]:
        """The figures of `pdserve simulate --json`."""
        return {
            "attainment": self.attainment(slo),
            "ttft_ms": self.percentiles(self.ttft_s),
            "tpot_ms": self.percentiles(self.tpot_s),
            "queue_ms": self.percentiles(self.queue_s),
            "handoff_ms": self.percentiles(self.handoff_s),
            "requests": len(self),
            "refused": self.refused,
            "preemptions": int(self.preemptions.sum()),
            "cached_tokens": int(self.cached_tokens.sum()),
            "simulated_s": self.end_s,
            "wall_s": self.wall_s,
            "requests_per_wall_s": len(self) / self.wall_s if self.wall_s > 0 else math.inf,
        }
