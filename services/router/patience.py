"""How long an instance may say nothing before the router gives it up.

A fixed bound is wrong for somebody: whoever has promised a first token within a second cannot wait
three for a peer that has stopped. So the bound follows from the strictest objectives of what runs
there, between a floor, below which a busy machine looks dead, and a ceiling, which holds where
nobody has objectives.
"""

import math
from dataclasses import dataclass

from pdserve.rpc.v1 import types_pb2

# TTFT and TPOT objectives, seconds, of those who have none.
NO_SLO = (math.inf, math.inf)
# Half of the time to the first token is left for another instance to compute it.
_TTFT_SHARE = 0.5
# One gap as long as so many tokens take: what comes after can still make up for it.
_TPOT_GAPS = 32
# A step that takes so many times what the instance has learned to expect is not merely slow.
_STEP_FACTOR = 10
_REPORTS_PER_FLOOR = 4


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds in seconds; the ceilings hold even where the floor is above them."""

    floor_s: float
    silence_timeout_s: float
    step_timeout_s: float

    @property
    def interval_s(self) -> float:
        """How often reports are asked for: one that is late must not look like silence."""
        return min(self.floor_s, self.silence_timeout_s) / _REPORTS_PER_FLOOR

    @property
    def shortest_step_s(self) -> float:
        """What any step may take."""
        return min(self.floor_s, self.step_timeout_s)

    def silence_s(self, ttft_s: float, tpot_s: float) -> float:
        """How long no report may come, by the strictest objectives there, infinite where none."""
        return min(max(_hurry_s(ttft_s, tpot_s), self.floor_s), self.silence_timeout_s)

    def step_s(self, ttft_s: float, tpot_s: float, expected_s: float | None) -> float:
        """How long a step may take, by the same and by what such a step takes there.

        An objective alone cannot tell a stuck device from a slow one: without an expectation, None,
        `step_timeout_s` holds.
        """
        if expected_s is None or math.isinf(hurry_s := _hurry_s(ttft_s, tpot_s)):
            return self.step_timeout_s
        slow_s = max(hurry_s, _STEP_FACTOR * expected_s)
        return min(max(slow_s, self.floor_s), self.step_timeout_s)


def longest_step_s(report: types_pb2.LoadReport) -> float | None:
    """How long the longest step may take that the instance could be at; None: it knows too little.

    The step holds as many prompt tokens as fit, at the end of the longest context, and everything
    that decodes; on a decode instance without prefill work, only the latter.
    """
    cost, info = report.cost, report.info
    decodes = info.role == types_pb2.ROLE_DECODE
    prefills = not decodes or report.waiting_tokens > 0
    if (prefills and not cost.prefill_steps) or (decodes and not cost.decode_steps):
        return None
    seconds = 0.0
    if prefills:
        new = min(info.max_batch_tokens, info.max_model_len)
        squares = 2 * info.max_model_len * new - new * new
        seconds += (
            cost.prefill_base_s
            + cost.prefill_per_token_s * new
            + cost.prefill_per_square_s * squares
        )
    if decodes:
        seconds += (
            cost.decode_base_s
            + cost.decode_per_context_token_s * report.context_tokens
            + cost.decode_per_sequence_s * info.max_batch_seqs
        )
    return seconds


def _hurry_s(ttft_s: float, tpot_s: float) -> float:
    return min(_TTFT_SHARE * ttft_s, _TPOT_GAPS * tpot_s)
