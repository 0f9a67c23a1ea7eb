"""The decoder: one class for every family, made of pieces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pdserve.engine.attention import Gathered, Heads, PagedStep, SelfAttention
from pdserve.engine.batch import RaggedBatch
from pdserve.engine.layers import Embedding, Module
from pdserve.engine.linear import Linear
from pdserve.engine.rotary import Rotary, Rotation
from pdserve.kv.pool import KvPool

DEFAULT_LAYER_GROUPS = 6


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One transformer layer, with a norm before each of its two sublayers."""

    attention_norm: Module
    attention: SelfAttention
    mlp_norm: Module
    mlp: Module

    def __call__(self, x: Tensor, rotation: Rotation | None, step: PagedStep, layer: int) -> Tensor:
        """Maps [tokens, hidden] to the same, writing the tokens' KV of `layer`."""
        x = x + self.attention(self.attention_norm(x), rotation, step, layer)
        return x + self.mlp(self.mlp_norm(x))


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder-only language model. `rotary` is None where positions are learned."""

    embedding: Embedding
    rotary: Rotary | None
    layers: Sequence[DecoderLayer]
    norm: Module
    head: Linear
    heads: Heads
    # Layers that are reported together; 0: a sixth of the model.
    layer_group: int = 0
    # Memory of the step in progress: one step at a time.
    gathered: Gathered = field(default_factory=Gathered)

    @property
    def layer_groups(self) -> list[range]:
        """The layers in the groups that are reported together, in order."""
        size = self.layer_group or -(-len(self.layers) // DEFAULT_LAYER_GROUPS)
        layers = range(len(self.layers))
        return [layers[begin : begin + size] for begin in layers[::size]]

    @torch.inference_mode()
    def forward(
        self,
        batch: RaggedBatch,
        kv: KvPool,
        on_layers: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Computes one step: writes the KV of every token and returns the wanted logits.

        Returns float32 [sampled spans, vocab], an inference tensor. `on_layers(begin, end)` is
        called after each group of layers whose KV is written, on CUDA enqueued on the current
        stream; the groups are contiguous and cover every layer once.
        """
        x = self.embedding(batch.token_ids, batch.positions)
        rotation = None if self.rotary is None else self.rotary(batch.positions)
        step = PagedStep(batch, kv, self.heads, self.gathered)
        for group in self.layer_groups:
            for index in group:
                x = self.layers[index](x, rotation, step, index)
            if on_layers is not None:
                on_layers(group.start, group.stop)
        return self.head(self.norm(x.index_select(0, batch.sampled))).float()
