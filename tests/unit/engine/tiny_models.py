"""Tiny random checkpoints of every family, and what transformers makes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from pdserve.engine.batch import RaggedBatch, Span
from pdserve.engine.loader import LoadedModel
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.models.source import ModelSource

VOCAB = 131
CPU = torch.device("cpu")
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZES),
    "llama_tied": lambda: LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "llama_llama3_rope": lambda: LlamaConfig(**_SIZES, rope_parameters=_LLAMA3),
    "llama_linear_rope": lambda: LlamaConfig(**_SIZES, rope_parameters=_LINEAR),
    "llama_biases": lambda: LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True),
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=None, head_dim=16),
    "qwen2": lambda: Qwen2Config(**_SIZES, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**_SIZES, head_dim=16),
    "opt": lambda: OPTConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        word_embed_proj_dim=48,
        ffn_dim=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=48, n_layer=3, n_head=4, n_positions=256, n_inner=None
    ),
}


def make_checkpoint(family: str, directory: Path, *, shard_size: str = "1GB") -> torch.nn.Module:
    """Saves a random model of `family` as a Hugging Face directory and returns it."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    for parameter in model.parameters():  # biases and norms start as zeros and ones: unlike any
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(directory, max_shard_size=shard_size)
    return model


def source_of(directory: Path) -> ModelSource:
    return ModelSource(directory.name, "hf", directory)


@torch.no_grad()
def reference_logits(model: torch.nn.Module, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits [tokens, vocab] of transformers for one whole text."""
    logits: torch.Tensor = model(torch.tensor([list(token_ids)])).logits[0].float()
    return logits


def random_tokens(count: int, seed: int = 0, vocab: int = VOCAB) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab, (count,), generator=generator).tolist()


def make_pool(
    model: LoadedModel,
    *,
    blocks: int,
    block_size: int,
    dtype: str = "float32",
    device: torch.device = CPU,
) -> KvPool:
    config = model.config
    layout = KvLayout(
        model.fingerprint, dtype, config.layers, config.kv_heads, config.head_dim, block_size
    )
    return KvPool(layout, blocks, device)


class Text:
    """One sequence on its way through the model: its tokens, its blocks, how far it is."""

    def __init__(self, token_ids: Sequence[int], blocks: Sequence[int]) -> None:
        self.token_ids = list(token_ids)
        self.blocks = list(blocks)
        self.done = 0

    def next_span(self, count: int, *, sample: bool = True) -> Span:
        begin, self.done = self.done, self.done + count
        return Span(self.token_ids[begin : self.done], begin, self.blocks, sample)


def run(model: LoadedModel, pool: KvPool, spans: Sequence[Span]) -> torch.Tensor:
    """The logits, on the CPU."""
    batch = RaggedBatch.build(spans, pool.layout.block_size, pool.device)
    return model.decoder.forward(batch, pool).cpu()
