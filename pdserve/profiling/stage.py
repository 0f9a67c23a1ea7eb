"""Puts an engine into the state before a step of a given shape, and times that step."""

import random
from collections.abc import Callable, Sequence
from itertools import count

import torch

from pdserve.engine.engine import Engine, EngineRequest
from pdserve.engine.events import Admitted, Event, Sampled
from pdserve.errors import OutOfMemoryError
from pdserve.kv.pool import KvPool
from pdserve.profiling.shape import StepShape
from pdserve.sampling import MAX_COUNT, SamplingParams
from pdserve.scheduling.sequence import Work

# Room beside a context for the steps that are computed around it.
MAX_STEPS = 5
_GREEDY = SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=MAX_COUNT)


class Stage:
    """Owns an engine, with its prefix cache on, that nobody else steps.

    Contexts and pasts are not computed: they arrive as from a prefill instance, as KV that is
    written into the pool. `clock` returns seconds.
    """

    def __init__(
        self, engine: Engine, pool: KvPool, vocab_size: int, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._vocab_size = vocab_size
        self._clock = clock
        self._random = random.Random(0)
        self._keys = map(str, count())
        self._kv = torch.randn_like(pool.data[:, :, :1])
        self._written: set[int] = set()

    def time(self, shape: StepShape, steps: int = 1) -> list[float]:
        """Seconds of each of `steps` whole engine steps of this shape; 1 to `MAX_STEPS`.

        Sequences that decode grow by a token a step; in the middle one they have the contexts of
        the shape. Raises `OutOfMemoryError` where the device has no room for the step's tensors.
        """
        try:
            pasts = [self._cache(self._tokens(prompt.past)) for prompt in shape.prompts]
            contexts = [max(1, context - steps // 2) for context in shape.contexts]
            decoding = self._receive([self._tokens(context) for context in contexts])
            seconds = [self._time_once(shape, pasts) for _ in range(steps)]
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"a step of {shape.tokens} prompt tokens and {shape.batch} decoding sequences does "
                "not fit beside weights and KV pool: lower --max-batch-tokens, --max-batch-seqs or "
                "--kv-memory-fraction",
                field="max_batch_tokens",
            ) from error
        for key in decoding:
            self._engine.remove(key)
        return seconds

    def _time_once(self, shape: StepShape, pasts: Sequence[Sequence[int]]) -> float:
        keys = [
            self._add([*past, *self._tokens(prompt.new)], Work.PREFILL)
            for past, prompt in zip(pasts, shape.prompts, strict=True)
        ]
        began = self._clock()
        events = self._engine.step()
        seconds = self._clock() - began
        _check(shape, events)
        for key in keys:
            self._engine.remove(key)
        return seconds

    def _cache(self, past: Sequence[int]) -> Sequence[int]:
        """Puts the KV of `past` into the prefix cache."""
        if past:
            for key in self._receive([past]):
                self._engine.remove(key)
        return past

    def _receive(self, texts: Sequence[Sequence[int]]) -> list[str]:
        """Starts sequences that decode after `texts`, whose KV has arrived; returns their keys."""
        keys = [self._add(text, Work.DECODE) for text in texts]
        # Nothing runs yet: this step admits, and computes nothing.
        for event in self._engine.step():
            assert isinstance(event, Admitted)
            self._write(event.blocks)
        for key in keys:
            self._engine.loaded(key, *self._tokens(1))
        return keys

    def _write(self, blocks: Sequence[int]) -> None:
        """Fills blocks that nothing was written to yet.

        The pool's memory is not there before that: all its pages are one page of zeros, which the
        processor's cache holds and no real KV can match.
        """
        fresh = [block for block in blocks if block not in self._written]
        if fresh:
            self._pool.data[:, :, fresh] = self._kv
            self._written.update(fresh)

    def _add(self, text: Sequence[int], work: Work) -> str:
        key = next(self._keys)
        self._engine.add(EngineRequest(key, tuple(text), (), _GREEDY, work))
        return key

    def _tokens(self, number: int) -> list[int]:
        """Random tokens: no text shares a prefix with another."""
        return self._random.choices(range(self._vocab_size), k=number)


def _check(shape: StepShape, events: Sequence[Event]) -> None:
    """Raises `AssertionError` unless the step computed what the shape says."""
    cached = [event.cached_tokens for event in events if isinstance(event, Admitted)]
    sampled = sum(isinstance(event, Sampled) for event in events)
    assert cached == [prompt.past for prompt in shape.prompts], f"{shape} found {cached} cached"
    assert sampled == len(shape.lengths), f"{shape} sampled {sampled} tokens"
