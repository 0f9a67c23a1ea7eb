"""An engine without a model whose tokens prove that KV is where it belongs.

What it writes to the KV pool for a token is the token's id, the layer, and whether it is key or
value. Before it samples it reads all KV of the sequence back; the next token is a checksum of the
tokens before it, or `DAMAGED` where the KV says anything else. So a client can tell from the prompt
alone what must come, whatever instances and blocks the sequence has gone through.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pdserve.config import InstanceConfig
from pdserve.engine.engine import Chunks, LayersDone
from pdserve.engine.sampler import SampledToken
from pdserve.instance.loading import LoadedEngine
from pdserve.kv.layout import TRANSFER_PROTOCOL, KvLayout
from pdserve.kv.pool import KvPool
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model
from pdserve.scheduling.batching import Chunk
from pdserve.scheduling.sequence import Sequence as Running
from tests.doubles.holds import Holds

LAYERS, KV_HEADS = 4, 1
# Ordinary tokens of the default model; `DAMAGED` is none of them.
FIRST_TOKEN, TOKENS, DAMAGED = 1000, 29000, 7
# Above every token id, so that float32 holds id and place exactly.
_PLACE = 1 << 16


def continuation(prompt: Sequence[int], count: int) -> list[int]:
    """The `count` tokens that follow `prompt`."""
    checksum, tokens = _checksum(prompt), []
    for _ in range(count):
        tokens.append(_token(checksum))
        checksum = _checksum(tokens[-1:], checksum)
    return tokens


def _checksum(tokens: Sequence[int], before: int = 0) -> int:
    return zlib.crc32(np.asarray(tokens, dtype=np.int32).tobytes(), before)


def _token(checksum: int) -> int:
    return FIRST_TOKEN + checksum % TOKENS


@dataclass(frozen=True, slots=True)
class Pace:
    """What a step takes, in seconds: for itself, and for each token of a prompt in it."""

    step_s: float = 0.004
    prompt_token_s: float = 0.0001


class ContextRunner:
    """Takes the time that `pace` says, writes KV layer by layer, and checks what it reads.

    Reaches the stages "computing" (of a prompt, with some layers done), "decoding" (from the third
    token of an output on) and "finishing" (the last token of an output).
    """

    def __init__(self, pool: KvPool, pace: Pace, holds: Holds) -> None:
        shape = (LAYERS, 2, pool.num_blocks * pool.layout.block_size, KV_HEADS, -1)
        self._kv = pool.data.numpy().reshape(shape)
        self._block_size = pool.layout.block_size
        self._pace = pace
        self._holds = holds
        places = np.arange(LAYERS * 2, dtype=np.float32).reshape(LAYERS, 2, 1)
        self._places = places * _PLACE

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """One token for each chunk that ends its sequence."""
        for stage in sorted({_stage(chunk) for chunk in chunks} - {"computing", ""}):
            self._holds.reach(stage)
        slots = [self._slots(chunk) for chunk in chunks]
        prompt_tokens = sum(chunk.tokens for chunk in chunks if chunk.tokens > 1)
        layer_s = (self._pace.step_s + prompt_tokens * self._pace.prompt_token_s) / LAYERS
        began = time.monotonic()
        for layer in range(LAYERS):
            for chunk, at in zip(chunks, slots, strict=True):
                self._write(chunk, layer, at)
            time.sleep(max(0.0, began + (layer + 1) * layer_s - time.monotonic()))
            if layers_done is not None:
                layers_done(layer, layer + 1)
            if layer == 0 and prompt_tokens:
                self._holds.reach("computing")
        return [self._sample(chunk, at) for chunk, at in zip(chunks, slots, strict=True)]

    def _slots(self, chunk: Chunk[Running]) -> np.ndarray:
        """Where the KV of everything up to the end of the chunk lies."""
        positions = np.arange(chunk.sequence.computed + chunk.tokens)
        blocks = np.asarray(chunk.sequence.blocks)
        return blocks[positions // self._block_size] * self._block_size + (
            positions % self._block_size
        )

    def _write(self, chunk: Chunk[Running], layer: int, slots: np.ndarray) -> None:
        new = np.asarray(chunk.sequence.tokens[len(slots) - chunk.tokens : len(slots)], np.float32)
        values = self._places[layer] + new
        self._kv[layer][:, slots[-chunk.tokens :]] = values[:, :, None, None]

    def _sample(self, chunk: Chunk[Running], slots: np.ndarray) -> SampledToken | None:
        if chunk.tokens != chunk.sequence.uncomputed:
            return None
        tokens = chunk.sequence.tokens
        wanted = self._places + np.asarray(tokens, dtype=np.float32)
        # The two ends of what a token has in a layer: what is between them has moved with them.
        intact = all(np.array_equal(self._kv[:, :, slots, end, end], wanted) for end in (0, -1))
        return SampledToken(_token(_checksum(tokens)) if intact else DAMAGED)


def _stage(chunk: Chunk[Running]) -> str:
    sequence = chunk.sequence
    if chunk.tokens > 1 or not sequence.outputs:
        return "computing"
    if sequence.outputs == sequence.sampling.max_tokens - 1:
        return "finishing"
    return "decoding" if sequence.outputs >= 2 else ""


def load_context_engine(
    config: InstanceConfig,
    pace: Pace,
    holds: Holds,
    *,
    blocks: int,
    head_dim: int,
    fingerprint: str = "context",
    protocol: int = TRANSFER_PROTOCOL,
) -> LoadedEngine:
    """The engine with the vocabulary and limits of `config.model`.

    A token has `LAYERS` × 2 × `head_dim` × 4 bytes of KV. `fingerprint` and `protocol` are only
    said: whatever they are, the tokens are the same.
    """
    shape = read_config(resolve_model(config.model))
    layout = KvLayout(
        *(fingerprint, "float32", LAYERS, KV_HEADS, head_dim, config.block_size), protocol=protocol
    )
    pool = KvPool(layout, blocks, torch.device("cpu"))
    return LoadedEngine(
        model=config.model,
        runner=ContextRunner(pool, pace, holds),
        pool=pool,
        layout=layout,
        vocab_size=shape.vocab_size,
        max_model_len=min(shape.served_length(config.max_model_len), blocks * config.block_size),
        eos_token_ids=frozenset(shape.eos_token_ids),
    )
