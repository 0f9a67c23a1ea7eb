"""What goes into the next step: iteration-level batching under a token budget.

Continuous batching is from Orca (OSDI 2022, section 4); decode first and prefill in chunks that
fill what is left of the budget is from Sarathi-Serve (OSDI 2024, section 4). On a prefill instance
nothing decodes, and the same rule batches prompts up to the budget at which prefill saturates the
device (DistServe, OSDI 2024, section 4.3).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Batchable(Protocol):
    """What the policy must know of a sequence."""

    @property
    def uncomputed(self) -> int:
        """Tokens whose KV is still to be computed: 1 while decoding."""
        ...


S = TypeVar("S", bound=Batchable)


@dataclass(frozen=True, slots=True)
class Chunk(Generic[S]):
    """The next `tokens` uncomputed tokens of a sequence."""

    sequence: S
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Bounds one step to `max_tokens` tokens of at most `max_seqs` sequences."""

    max_tokens: int
    max_seqs: int

    def fill(self, running: Iterable[S]) -> list[Chunk[S]]:
        """Chunks of the running sequences: each decode first, then prefills in order."""
        sequences = list(running)[: self.max_seqs]
        decoding = [sequence for sequence in sequences if sequence.uncomputed == 1]
        prefilling = [sequence for sequence in sequences if sequence.uncomputed > 1]
        chunks = [Chunk(sequence, 1) for sequence in decoding[: self.max_tokens]]
        left = self.max_tokens - len(chunks)
        for sequence in prefilling:
            if left <= 0:
                break
            chunks.append(Chunk(sequence, min(sequence.uncomputed, left)))
            left -= chunks[-1].tokens
        return chunks

    def left(self, chunks: Iterable[Chunk[S]]) -> int:
        """Tokens that fit besides `chunks`."""
        return self.max_tokens - sum(chunk.tokens for chunk in chunks)
