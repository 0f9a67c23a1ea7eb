"""One request inside an instance: its tokens, its blocks and how far it is."""

from dataclasses import dataclass, field
from enum import Enum

from pdserve.kv.prefix import HashChain
from pdserve.sampling import SamplingParams
from pdserve.scheduling.urgency import ORDINARY, Urgency
from pdserve.scheduling.waiting import NOWHERE, Place


class FinishReason(Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"


class Work(Enum):
    """What this instance does for a sequence."""

    PREFILL = "prefill"  # compute the prompt, sample one token, hold the KV
    DECODE = "decode"  # receive the KV, sample the further tokens
    BOTH = "both"  # compute the prompt and sample every token


class State(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"  # has no blocks
    LOADING = "loading"  # has blocks that are being filled by a transfer
    RUNNING = "running"  # takes part in steps
    HELD = "held"  # is computed; its KV waits to be pulled


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's tokens (prompt, then output) and the KV blocks that hold the first `computed`.

    `place` orders sequences: the last is preempted first.
    """

    key: str
    tokens: list[int]
    prompt_tokens: int
    sampling: SamplingParams
    end_token_ids: frozenset[int]
    work: Work
    chain: HashChain
    urgency: Urgency = ORDINARY
    tpot_limit_s: float = 0.0  # the request's own objective; 0: it has none
    place: Place = NOWHERE
    state: State = State.WAITING
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    cached_tokens: int = 0
    registered: int = 0  # leading blocks that the prefix cache knows
    preemptions: int = 0

    @property
    def uncomputed(self) -> int:
        """Tokens whose KV is still to be computed: 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def outputs(self) -> int:
        """Tokens generated so far, over all attempts."""
        return len(self.tokens) - self.prompt_tokens

    def finish_reason(self, max_model_len: int) -> FinishReason | None:
        """Why the last token ends the generation, or None when it does not."""
        if self.outputs >= self.sampling.min_tokens and self.tokens[-1] in self.end_token_ids:
            return FinishReason.STOP
        if self.outputs >= self.sampling.max_tokens or len(self.tokens) >= max_model_len:
            return FinishReason.LENGTH
        return None
