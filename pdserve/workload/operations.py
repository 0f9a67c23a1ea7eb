"""What can be done to a workload. Arrivals of every result count from its first request."""

from dataclasses import replace

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.arrivals import Arrivals
from pdserve.workload.draw import WorkloadSpec, check_seed, draw_workload
from pdserve.workload.lengths import EmpiricalLengths
from pdserve.workload.workload import Ints, PrefixBlocks, Workload


def head(workload: Workload, requests: int) -> Workload:
    """The first `requests` requests, or all where there are fewer."""
    _check_at_least_one("limit", requests)
    return _from_first(workload.take(slice(0, requests)))


def window(workload: Workload, start_s: float, end_s: float) -> Workload:
    """The requests that arrive from `start_s` on and before `end_s`.

    Raises `ConfigError` where there are none.
    """
    if not start_s < end_s:
        text = f"the window from {start_s} s to {end_s} s is empty"
        raise ConfigError(text, field="window", limit="start < end")
    first, last = np.searchsorted(workload.arrival_s, (start_s, end_s))
    if first == last:
        text = f"{workload.name}: no request arrives from {start_s} s to {end_s} s; the last one "
        text += f"arrives at {workload.arrival_s[-1]:.6g} s"
        raise ConfigError(text, field="window")
    return _from_first(workload.take(slice(first, last)))


def thin(workload: Workload, share: float, seed: int = 0) -> Workload:
    """A random `share` of the requests, at the times at which they arrived.

    The rate falls to that share, and arrivals come closer to a Poisson process. For the same
    requests at a lower rate see `Workload.at_rate`.
    """
    return split(workload, share, seed)[0] if share != 1 else workload


def split(workload: Workload, share: float, seed: int = 0) -> tuple[Workload, Workload]:
    """A random `share` of the requests, such as to plan with, and the rest, to check with.

    Raises `ConfigError` unless `share` lies between 0 and 1 and leaves both parts a request.
    """
    _check_share(share)
    check_seed(seed)
    count = round(share * len(workload))
    if not 0 < count < len(workload):
        text = f"share is {share}; of {len(workload)} requests that leaves one part none"
        raise ConfigError(text, field="share")
    chosen = np.zeros(len(workload), dtype=bool)
    chosen[np.random.default_rng(seed).choice(len(workload), count, replace=False)] = True
    parts = (workload.take(np.flatnonzero(each)) for each in (chosen, ~chosen))
    first, rest = map(_from_first, parts)
    return first, rest


def repeat(workload: Workload, requests: int) -> Workload:
    """The first `requests` requests of the workload played over and over.

    Between two rounds lies the mean time between requests. No round shares prefixes, or goes on
    with the conversations, of another.
    """
    _check_at_least_one("requests", requests)
    size = len(workload)
    order = np.arange(requests) % size
    rounds = np.arange(requests) // size
    gap = workload.duration_s / (size - 1) if size > 1 else 0.0
    first = workload.arrival_s[0]
    arrivals = workload.arrival_s[order] - first + rounds * (workload.duration_s + gap)
    return replace(
        workload,
        arrival_s=arrivals,
        prompt_tokens=workload.prompt_tokens[order],
        output_tokens=workload.output_tokens[order],
        prefix=_repeated(workload.prefix, order, rounds) if workload.prefix else None,
        conversation=_kept_apart(workload.conversation, order, rounds),
    )


def rotate(workload: Workload, share: float) -> Workload:
    """The same requests, begun `share` of them later and ended with those that were skipped.

    Bursts stay as they are but for the seam; what changes is what the system has just seen when one
    comes. So one trace gives several that are alike, to see how far a result hangs on chance.
    """
    size = len(workload)
    shift = round(share * size) % size
    gap = workload.duration_s / (size - 1) if size > 1 else 0.0
    order = np.roll(np.arange(size), -shift)
    gaps = np.diff(workload.arrival_s[order])
    gaps[gaps < 0] = gap  # the seam
    return replace(
        workload,
        arrival_s=np.concatenate(([0.0], np.cumsum(gaps))),
        prompt_tokens=workload.prompt_tokens[order],
        output_tokens=workload.output_tokens[order],
        prefix=workload.prefix.take(order) if workload.prefix else None,
        conversation=None if workload.conversation is None else workload.conversation[order],
    )


def resample(
    workload: Workload,
    requests: int,
    arrivals: Arrivals,
    rate: float | None = None,
    seed: int = 0,
) -> Workload:
    """`requests` requests drawn from the workload with replacement, with arrivals drawn anew.

    `rate` is in requests per second; None is the workload's. Prefixes are left out: a prompt that
    is drawn twice would be a hit in the prefix cache that nobody has seen.
    """
    if rate is None:
        rate = workload.rate if np.isfinite(workload.rate) else arrivals.default_rate
    lengths = EmpiricalLengths(workload)
    return draw_workload(
        WorkloadSpec(requests, lengths, arrivals, rate, seed=seed, name=workload.name)
    )


def clamp_context(workload: Workload, max_tokens: int) -> Workload:
    """The requests cut so that prompt and output together have at most `max_tokens` tokens.

    Outputs give way first, but for one token; what is left of a prompt is its beginning.
    """
    if max_tokens < 2:
        text = f"max_context is {max_tokens}; it must be at least 2"
        raise ConfigError(text, field="max_context", limit=">= 2")
    prompts = np.minimum(workload.prompt_tokens, max_tokens - 1)
    return replace(
        workload,
        prompt_tokens=prompts,
        output_tokens=np.minimum(workload.output_tokens, max_tokens - prompts),
        prefix=_cut(workload.prefix, prompts) if workload.prefix else None,
    )


def without_prefix(workload: Workload) -> Workload:
    """The requests as if no two prompts began alike."""
    return replace(workload, prefix=None, conversation=None)


def _from_first(workload: Workload) -> Workload:
    return replace(workload, arrival_s=workload.arrival_s - workload.arrival_s[0])


def _repeated(prefix: PrefixBlocks, order: Ints, rounds: Ints) -> PrefixBlocks:
    taken = prefix.take(order)
    shift = np.repeat(rounds * prefix.count, np.diff(taken.offsets))
    return replace(taken, ids=taken.ids + shift)


def _kept_apart(conversation: Ints | None, order: Ints, rounds: Ints) -> Ints | None:
    if conversation is None:
        return None
    taken = conversation[order]
    apart: Ints = np.where(taken < 0, taken, taken + rounds * (conversation.max() + 1))
    return apart


def _cut(prefix: PrefixBlocks, prompts: Ints) -> PrefixBlocks:
    """The blocks without those that begin behind the end of the prompt."""
    counts = np.diff(prefix.offsets)
    place = np.arange(len(prefix.ids)) - np.repeat(prefix.offsets[:-1], counts)
    kept = place * prefix.block_tokens < np.repeat(prompts, counts)
    room = -(-prompts // prefix.block_tokens)
    offsets = np.concatenate(([0], np.cumsum(np.minimum(counts, room))))
    _, dense = np.unique(prefix.ids[kept], return_inverse=True)
    return PrefixBlocks(offsets, dense.astype(np.int64, copy=False), prefix.block_tokens)


def _check_at_least_one(name: str, requests: int) -> None:
    if requests < 1:
        text = f"{name} is {requests}; it must be at least 1"
        raise ConfigError(text, field=name, limit=">= 1")


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        text = f"share is {share}; it must lie between 0 and 1"
        raise ConfigError(text, field="share", limit="(0, 1)")
