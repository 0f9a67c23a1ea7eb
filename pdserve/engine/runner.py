"""From chunks to tensors, and from logits to tokens."""

import torch

from pdserve.engine.batch import RaggedBatch, Span
from pdserve.engine.engine import Chunks, LayersDone
from pdserve.engine.model import Decoder
from pdserve.engine.sampler import SampledToken, SampleRow, sample
from pdserve.kv.pool import KvPool

_WARM_UP_TOKENS = 64


class ModelRunner:
    """Runs a decoder over a KV pool."""

    def __init__(self, decoder: Decoder, pool: KvPool) -> None:
        self._decoder = decoder
        self._pool = pool

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Computes a prompt and a step of nothing in particular, in blocks that are still free.

        The first call of each kernel chooses and compiles it; no request should wait for that.
        """
        layout = self._pool.layout
        blocks = range(min(self._pool.num_blocks, -(-_WARM_UP_TOKENS // layout.block_size)))
        prompt = min(_WARM_UP_TOKENS, len(blocks) * layout.block_size) - 1
        for span in (Span([0] * prompt, 0, blocks, True), Span([0], prompt, blocks, True)):
            batch = RaggedBatch.build([span], layout.block_size, self._pool.device)
            self._decoder.forward(batch, self._pool)
        self._pool.synchronize()

    @torch.inference_mode()
    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """Computes the chunks' KV and samples for those that end their sequence.

        When this returns the KV is in the pool, not only on its way there: a transfer, which has a
        stream of its own, may then read blocks that the prefix cache shares and write freed ones.
        """
        spans, rows = [], []
        for chunk in chunks:
            sequence = chunk.sequence
            begin, end = sequence.computed, sequence.computed + chunk.tokens
            last = end == len(sequence.tokens)
            spans.append(Span(sequence.tokens[begin:end], begin, sequence.blocks, last))
            if last:
                rows.append(
                    SampleRow(
                        sequence.sampling,
                        sequence.tokens,
                        sequence.prompt_tokens,
                        sequence.end_token_ids,
                    )
                )
        batch = RaggedBatch.build(spans, self._pool.layout.block_size, self._pool.device)
        logits = self._decoder.forward(batch, self._pool, layers_done)
        tokens = iter(sample(logits, rows) if rows else [])
        self._pool.synchronize()
        return [next(tokens) if span.sample else None for span in spans]
