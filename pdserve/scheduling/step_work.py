"""What a step computes, in the terms of `pdserve.latency.cost`."""

from collections.abc import Iterable
from dataclasses import dataclass

from pdserve.scheduling.batching import Chunk
from pdserve.scheduling.sequence import Sequence, Work


@dataclass(frozen=True, slots=True)
class StepWork:
    """New tokens and squares of the prompts, number and context of the decoding sequences."""

    tokens: int
    squares: int
    batch: int
    context: int


def step_work(chunks: Iterable[Chunk[Sequence]]) -> StepWork:
    """The work of chunks that have not been committed yet.

    As in `TokenBudget`, a single last token counts as decoding, but for a prefill instance, where
    nothing decodes: it computes the end of a prompt whose beginning was cached.
    """
    tokens = squares = batch = context = 0
    for chunk in chunks:
        sequence, new = chunk.sequence, chunk.tokens
        past = sequence.computed
        if sequence.uncomputed == 1 and sequence.work is not Work.PREFILL:
            batch += 1
            context += past + 1
        else:
            tokens += new
            squares += new * (2 * past + new)
    return StepWork(tokens, squares, batch, context)
