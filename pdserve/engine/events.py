"""What a step of the engine tells the service."""

from dataclasses import dataclass

from pdserve.engine.sampler import SampledToken
from pdserve.scheduling.sequence import FinishReason


@dataclass(frozen=True, slots=True)
class Admitted:
    """A sequence has its blocks: it starts to compute or, on decode, may receive its KV."""

    key: str
    blocks: tuple[int, ...]
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """Output token number `index` of a sequence; `finish_reason` is set on the last."""

    key: str
    index: int
    token: SampledToken
    finish_reason: FinishReason | None
    preemptions: int


Event = Admitted | Sampled
