"""The shapes of steps that are worth measuring on an instance."""

from collections.abc import Iterator
from dataclasses import dataclass

from pdserve.profiling.shape import Prompt, StepShape
from pdserve.profiling.stage import MAX_STEPS

_SHORTEST_PROMPT = 16
_SHORTEST_CONTEXT = 64
# Passes have the whole token budget, a half of it, a quarter …,
_HALVINGS = 5
# in one prompt or in so many.
_PROMPTS = 4
# Costs are straight lines in the context, so that few of them, far apart, do.
_CONTEXT_STEP = 4
# Share of the KV pool that a step may use; the scheduler keeps some for sequences that grow.
_POOL_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance can compute in one step.

    `max_tokens` and `max_seqs` bound a step, `max_len` a sequence's tokens, `blocks` the KV.
    """

    max_tokens: int
    max_seqs: int
    max_len: int
    blocks: int
    block_size: int

    def allow(self, shape: StepShape) -> bool:
        """Whether an instance computes this shape in one step, and its neighbours around it."""
        lengths = shape.lengths
        if not lengths or len(lengths) > self.max_seqs:
            return False
        if shape.tokens + shape.batch > self.max_tokens:
            return False
        if max(lengths) + MAX_STEPS >= self.max_len:
            return False
        if any(prompt.new < 2 or prompt.past % self.block_size for prompt in shape.prompts):
            return False
        used = sum(-(-(length + MAX_STEPS) // self.block_size) for length in lengths)
        return used <= _POOL_SHARE * self.blocks


def grid(limits: Limits) -> list[StepShape]:
    """Prefill, decode and mixed steps within the limits, without duplicates."""
    shapes = (*_prefills(limits), *_decodes(limits), *_mixed(limits))
    return [shape for shape in dict.fromkeys(shapes) if limits.allow(shape)]


def _prefills(limits: Limits) -> Iterator[StepShape]:
    """Passes of one prompt, of several, and of one after a past.

    Tokens and squares tell apart what linear layers and what attention cost: the same tokens are
    computed as one prompt (most squares), as several (fewer) and after a past (more).
    """
    longest = _longest(limits)
    for tokens in _halves(min(limits.max_tokens, longest)):
        yield StepShape((Prompt(tokens),))
        yield StepShape((Prompt(tokens // _PROMPTS),) * _PROMPTS)
    chunk = min(limits.max_tokens, longest // 2)
    # A short chunk after a long past is the cheapest step that is attention for the most part.
    for part, share in ((8, 8), (8, 4), (8, 2), (8, 1), (2, 4), (1, 8)):
        past = _whole_blocks((longest - chunk // part) / share, limits)
        yield StepShape((Prompt(chunk // part, past),))


def _decodes(limits: Limits) -> Iterator[StepShape]:
    """Batches times contexts, every other one of them, as on a chessboard."""
    contexts = _contexts(limits)
    for parity, batch in enumerate(_batches(limits)):
        for context in contexts[parity % 2 :: 2] or contexts:
            yield StepShape(contexts=_spread(batch, context))


def _mixed(limits: Limits) -> Iterator[StepShape]:
    """Chunks that leave a part of the budget to sequences that decode."""
    past = _whole_blocks(_longest(limits) / 4, limits)
    chunk = min(limits.max_tokens, _longest(limits) // 2)
    for batch, context in zip(_batches(limits)[2::3], _contexts(limits)[::2], strict=False):
        decoding = _spread(batch, context)
        for prompt in (Prompt(chunk // 4), Prompt(chunk // 4, past), Prompt(chunk - batch)):
            yield StepShape((prompt,), decoding)


def _longest(limits: Limits) -> int:
    """Tokens of the longest sequence that the limits allow to step."""
    in_pool = int(_POOL_SHARE * limits.blocks) * limits.block_size
    return min(limits.max_len - 1, in_pool) - MAX_STEPS


def _whole_blocks(tokens: float, limits: Limits) -> int:
    return int(tokens) // limits.block_size * limits.block_size


def _halves(tokens: int) -> list[int]:
    """`tokens`, its half, its quarter …: prompts that are not trivially short."""
    sizes = [tokens >> shift for shift in range(_HALVINGS)]
    return [size for size in sizes if size >= _SHORTEST_PROMPT] or [max(2, tokens)]


def _batches(limits: Limits) -> list[int]:
    most = min(limits.max_seqs, limits.max_tokens)
    return [*_powers(1, most, 2), most]


def _contexts(limits: Limits) -> list[int]:
    """Mean contexts; two thirds of the longest sequence are the most that can be spread."""
    most = max(1, _longest(limits) * 2 // 3)
    return [*_powers(min(_SHORTEST_CONTEXT, most), most, _CONTEXT_STEP), most]


def _powers(first: int, below: int, factor: int) -> Iterator[int]:
    while first < below:
        yield first
        first *= factor


def _spread(batch: int, mean: int) -> tuple[int, ...]:
    """Contexts from half to one and a half times `mean`, as of requests of different ages."""
    if batch == 1:
        return (mean,)
    return tuple(round(mean * (0.5 + index / (batch - 1))) for index in range(batch))
