"""What is known of a request when it has ended."""

import math
from dataclasses import dataclass
from typing import Literal

from pdserve.planner.slo import Slo

# "limited": the generator itself had too many requests in flight to send this one. "interrupted":
# whoever ran the generator ended it first.
Outcome = Literal["ok", "rejected", "timeout", "failed", "limited", "interrupted"]


@dataclass(frozen=True, slots=True)
class Record:
    """One request. `due_s` and `sent_s` count seconds from the beginning, the others from sending.

    Times are NaN where there was nothing to take: no token, no last one, not sent. `gaps_s` are
    those between chunks. `prompt_tokens` is what the workload says, `counted_tokens` what the
    server does; `output_tokens` is what came of `asked_tokens`. `answer_missed`: this turn of a
    conversation was due before the last one was answered, and went out without that answer.
    """

    index: int
    outcome: Outcome
    reason: str
    due_s: float
    sent_s: float
    ttft_s: float
    e2e_s: float
    gaps_s: tuple[float, ...]
    prompt_tokens: int
    asked_tokens: int
    output_tokens: int
    counted_tokens: int | None = None
    cached_tokens: int | None = None
    answer_missed: bool = False

    @property
    def lag_s(self) -> float:
        """How late the generator sent it; NaN where it did not."""
        return self.sent_s - self.due_s

    @property
    def tpot_s(self) -> float:
        """Mean time per output token after the first; NaN where there was none."""
        if self.output_tokens < 2:
            return math.nan
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)

    @property
    def measured(self) -> bool:
        """Whether it says something about the server."""
        return self.outcome not in ("limited", "interrupted")

    def met(self, slo: Slo) -> bool:
        """Whether it was answered within both bounds; of one token the TPOT is met."""
        if self.outcome != "ok":
            return False
        return self.ttft_s <= slo.ttft_s and not self.tpot_s > slo.tpot_s
