"""What a request has to expect on each instance and of each pair: arrays of seconds.

The formulas of the passes are those of `pdserve.latency.cost`, by which the planner plans.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdserve.rpc.v1 import types_pb2
from services.router.links import Floats, LinkEstimates
from services.router.placement.columns import Rows
from services.router.placer import PRIORITIES


@dataclass(frozen=True, slots=True)
class Habits:
    """What requests have been like lately: tokens of output, and seconds that they decoded."""

    output_tokens: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Prefills:
    """By prefill instance `[p]`: seconds until the request's turn, then until its first token."""

    queue_s: Floats
    compute_s: Floats

    @property
    def ttft_s(self) -> Floats:
        """Seconds from now until the first token."""
        return self.queue_s + self.compute_s

    def __getitem__(self, index: NDArray[np.intp]) -> "Prefills":
        return Prefills(self.queue_s[index], self.compute_s[index])


@dataclass(frozen=True, slots=True)
class Decodes:
    """By decode instance `[d]`: seconds of a step with the request in its batch, and seconds that
    the request waits for blocks or a seat.
    """

    step_s: Floats
    admission_s: Floats


def prefills(
    rows: Rows, tokens: int, cached: Floats, priority: types_pb2.Priority.ValueType, now: float
) -> Prefills:
    """What `tokens` of which `cached` `[p]` need no computing have to expect of each instance.

    What was reported is being worked off since; of the queue only work that goes first counts.
    """
    place = PRIORITIES.index(priority)
    age_s = np.maximum(0.0, now - rows["reported_at"])
    own = tokens - cached, tokens**2 - cached**2
    reported = rows["reported_tokens"][place], rows["reported_squares"][place]
    dispatched = rows["dispatched_tokens"][place], rows["dispatched_squares"][place]
    work = np.array((own, reported, dispatched))
    own_s, reported_s, dispatched_s = _work_s(rows, work[:, 0], work[:, 1])
    return Prefills(np.maximum(0.0, reported_s - age_s) + dispatched_s, own_s)


def _work_s(rows: Rows, tokens: Floats, squares: Floats) -> Floats:
    """Seconds `[…, p]` of prefill passes over so much work, in batches of the instance's budget."""
    base_s, per_token_s, per_square_s = rows["prefill"]
    batches = np.ceil(tokens / rows["batch_tokens"])
    return np.asarray(base_s * batches + per_token_s * tokens + per_square_s * squares)


def decodes(rows: Rows, tokens: int, habits: Habits) -> Decodes:
    """What a request with `tokens` of context has to expect of each instance."""
    batch = rows["decoding"] + 1
    context = rows["context"] + tokens
    large = batch >= rows["large_from"]
    lines = np.where(large, rows["decode_large"], rows["decode"])
    base_s, per_sequence_s, per_context_token_s = lines
    step_s = base_s + per_sequence_s * batch + per_context_token_s * context
    # Those that decode leave one by one, each with its blocks and its seat.
    lacking = np.maximum(0.0, rows["waiting"] + tokens + 1 - rows["free"])
    blocks_s = habits.decode_s * lacking / np.maximum(rows["context"], 1.0)
    standing = np.maximum(0.0, batch - rows["batch_seqs"])
    seats_s = habits.decode_s * standing / rows["batch_seqs"]
    return Decodes(step_s, np.maximum(blocks_s, seats_s))


def handoffs(
    source: Rows, compute_s: Floats, links: LinkEstimates, size_bytes: Floats, admission_s: Floats
) -> Floats:
    """Seconds `[p, d]` from the first token until decode has the KV, `size_bytes` `[d]`.

    All groups of layers but the last move while the next is computed, as far as the link keeps up.
    """
    groups = source["layer_groups"][:, None]
    moving_s = size_bytes / links.bytes_per_s
    hidden_s = compute_s[:, None] * (1 - 1 / groups)
    seen_s = np.maximum(moving_s - hidden_s, moving_s / groups)
    others_s = links.in_flight_bytes / links.bytes_per_s
    return np.asarray(seen_s + others_s + admission_s)
