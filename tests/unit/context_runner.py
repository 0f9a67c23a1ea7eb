"""An engine's runner without a model: its KV is the tokens themselves.

The next token is a hash of the context, and the context is read back from the KV blocks. A block
that is shared, evicted, reused or left unwritten by mistake therefore changes what is generated.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence

from pdserve.engine.engine import Chunks, Engine, EngineRequest, KvListener, LayersDone
from pdserve.engine.sampler import SampledToken
from pdserve.kv.blocks import BlockPool
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import TokenBudget
from pdserve.scheduling.scheduler import Scheduler
from pdserve.scheduling.sequence import Work

VOCAB = 40
EOS = 7


def next_token(context: Sequence[int]) -> int:
    """What follows `context`."""
    digest = hashlib.blake2b(repr(list(context)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) % VOCAB


def alone(request: EngineRequest, max_model_len: int) -> list[int]:
    """The output of `request` with nothing else in the world."""
    tokens, sampling = [*request.prompt_ids, *request.output_ids], request.sampling
    ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else {EOS})
    while True:
        tokens.append(next_token(tokens))
        count = len(tokens) - len(request.prompt_ids)
        ended = tokens[-1] in ends and count >= sampling.min_tokens
        if ended or count >= sampling.max_tokens or len(tokens) >= max_model_len:
            return tokens[len(request.prompt_ids) :]


class ContextRunner:
    """Writes tokens into blocks and hashes what it reads back."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._slots: dict[tuple[int, int], int] = {}

    def write(self, blocks: Sequence[int], begin: int, tokens: Sequence[int]) -> None:
        """Stores `tokens` at positions from `begin` on."""
        for position, token in enumerate(tokens, begin):
            index, offset = divmod(position, self._block_size)
            self._slots[blocks[index], offset] = token

    def read(self, blocks: Sequence[int], end: int) -> list[int]:
        """What the slots of the positions before `end` hold."""
        places = (divmod(position, self._block_size) for position in range(end))
        return [self._slots[blocks[index], offset] for index, offset in places]

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """Computes two layers' worth of nothing."""
        for chunk in chunks:
            sequence = chunk.sequence
            new = sequence.tokens[sequence.computed : sequence.computed + chunk.tokens]
            self.write(sequence.blocks, sequence.computed, new)
        if layers_done is not None:
            layers_done(0, 1)
            layers_done(1, 2)
        return [
            SampledToken(next_token(self.read(chunk.sequence.blocks, len(chunk.sequence.tokens))))
            if chunk.tokens == chunk.sequence.uncomputed
            else None
            for chunk in chunks
        ]


class GatedRunner(ContextRunner):
    """Announces that a step has begun and lets it end when `gate` opens."""

    def __init__(self, block_size: int) -> None:
        super().__init__(block_size)
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """One step."""
        self.entered.release()
        assert self.gate.acquire(timeout=30)
        return super().run(chunks, layers_done)


def build_engine(
    runner: ContextRunner,
    *,
    blocks: int = 32,
    block_size: int = 4,
    max_tokens: int = 16,
    max_seqs: int = 8,
    max_model_len: int | None = None,
    prefix_cache: bool = True,
    listener: KvListener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    """An engine over `runner` whose pool holds at least one sequence of any length."""
    pool = BlockPool(blocks, prefix_cache=prefix_cache)
    longest = max_model_len or blocks * block_size
    return Engine(
        Scheduler(pool, block_size, TokenBudget(max_tokens, max_seqs), longest, clock),
        runner,
        fingerprint="tokens",
        block_size=block_size,
        eos_token_ids=frozenset({EOS}),
        listener=listener,
        clock=clock,
    )


def a_request(
    key: str, prompt: Sequence[int] = (1, 2, 3), work: Work = Work.BOTH, **sampling: int | bool
) -> EngineRequest:
    """A greedy request that ignores the end token unless told otherwise."""
    params = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 5} | sampling
    return EngineRequest(key, tuple(prompt), (), SamplingParams(**params), work)
