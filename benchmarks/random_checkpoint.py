"""Checkpoints of Llama 3.1's form with random weights: steps cost as much as with trained ones."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes of a Llama whose heads divide the hidden size evenly."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


LLAMA_8B = LlamaShape(4096, 14_336, layers=32, heads=32, kv_heads=8, vocab=128_256)
TINY = LlamaShape(256, 512, layers=4, heads=8, kv_heads=2, vocab=1000)


def write_checkpoint(shape: LlamaShape, directory: Path, device: torch.device) -> None:
    """Writes config and weights, bfloat16, drawn on `device`; 16 GB for `LLAMA_8B`."""
    (directory / "config.json").write_text(json.dumps(_config(shape)))
    draw = _Draw(device)
    files: dict[str, str] = {}
    size = 0
    for part in range(shape.layers + 1):
        layer = part < shape.layers
        tensors = _layer(shape, part, draw) if layer else _ends(shape, draw)
        name = f"model-{part:03}.safetensors"
        save_file(tensors, directory / name, metadata={"format": "pt"})
        files |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _config(shape: LlamaShape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


class _Draw:
    """Tensors on the CPU, drawn where that is fast."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def weight(self, *shape: int) -> Tensor:
        return (torch.randn(shape, device=self._device, dtype=torch.bfloat16) * 0.02).cpu()

    def norm(self, size: int) -> Tensor:
        return torch.ones(size, dtype=torch.bfloat16)


def _layer(shape: LlamaShape, layer: int, draw: _Draw) -> dict[str, Tensor]:
    hidden, kv = shape.hidden, shape.kv_heads * shape.head_dim
    prefix = f"model.layers.{layer}"
    return {
        f"{prefix}.self_attn.q_proj.weight": draw.weight(hidden, hidden),
        f"{prefix}.self_attn.k_proj.weight": draw.weight(kv, hidden),
        f"{prefix}.self_attn.v_proj.weight": draw.weight(kv, hidden),
        f"{prefix}.self_attn.o_proj.weight": draw.weight(hidden, hidden),
        f"{prefix}.mlp.gate_proj.weight": draw.weight(shape.intermediate, hidden),
        f"{prefix}.mlp.up_proj.weight": draw.weight(shape.intermediate, hidden),
        f"{prefix}.mlp.down_proj.weight": draw.weight(hidden, shape.intermediate),
        f"{prefix}.input_layernorm.weight": draw.norm(hidden),
        f"{prefix}.post_attention_layernorm.weight": draw.norm(hidden),
    }


def _ends(shape: LlamaShape, draw: _Draw) -> dict[str, Tensor]:
    return {
        "model.embed_tokens.weight": draw.weight(shape.vocab, shape.hidden),
        "lm_head.weight": draw.weight(shape.vocab, shape.hidden),
        "model.norm.weight": draw.norm(shape.hidden),
    }
