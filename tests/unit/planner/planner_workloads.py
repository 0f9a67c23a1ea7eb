"""Workloads that look like chats: log-normal lengths, Poisson arrivals, a seed each."""

import numpy as np

from pdserve.workload.workload import Workload


def chats(seed, requests, rate, prompt=500, output=120):
    """`prompt` and `output` are medians, in tokens."""
    rng = np.random.default_rng(seed)
    return Workload(
        f"chats-{seed}",
        np.cumsum(rng.exponential(1 / rate, requests)),
        np.clip(rng.lognormal(np.log(prompt), 1.0, requests).astype(np.int64), 1, 4 * prompt),
        np.clip(rng.lognormal(np.log(output), 0.9, requests).astype(np.int64), 1, 6 * output),
    )


def steady(requests, gap_s, prompt, output):
    """Equal requests, equal gaps."""
    return Workload(
        "steady",
        np.arange(requests) * gap_s,
        np.full(requests, prompt),
        np.full(requests, output),
    )
