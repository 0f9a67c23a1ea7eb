"""What the tensors of a checkpoint are called, for each family and file format.

The loader asks for tensors by one set of names, the keys of `Naming.modules`; `{layer}` in a value
stands for the layer's number. A module has a `.weight` and may have a `.bias`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pdserve.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Naming:
    """How one family is stored in one format.

    `transposed` modules are stored [in, out]; rows of `interleaved` ones are in the order that
    rotates dimension 2i with 2i + 1. Some files have `prefix` before the names and some do not.
    `ignored` matches tensors that hold no weights.
    """

    modules: Mapping[str, str]
    transposed: frozenset[str] = frozenset()
    interleaved: frozenset[str] = frozenset()
    prefix: str = ""
    ignored: re.Pattern[str] = re.compile(r"(?!)")

    @property
    def fused_qkv(self) -> bool:
        """Whether queries, keys and values are one module, `qkv`."""
        return "qkv" in self.modules


_LLAMA_HF = Naming(
    {
        "embedding": "model.embed_tokens",
        "norm": "model.norm",
        "head": "lm_head",
        "attention_norm": "model.layers.{layer}.input_layernorm",
        "q": "model.layers.{layer}.self_attn.q_proj",
        "k": "model.layers.{layer}.self_attn.k_proj",
        "v": "model.layers.{layer}.self_attn.v_proj",
        "q_norm": "model.layers.{layer}.self_attn.q_norm",
        "k_norm": "model.layers.{layer}.self_attn.k_norm",
        "output": "model.layers.{layer}.self_attn.o_proj",
        "mlp_norm": "model.layers.{layer}.post_attention_layernorm",
        "gate": "model.layers.{layer}.mlp.gate_proj",
        "up": "model.layers.{layer}.mlp.up_proj",
        "down": "model.layers.{layer}.mlp.down_proj",
    },
    ignored=re.compile(r".*\.rotary_emb\.inv_freq"),
)
_OPT_HF = Naming(
    {
        "embedding": "decoder.embed_tokens",
        "positions": "decoder.embed_positions",
        "norm": "decoder.final_layer_norm",
        "head": "lm_head",
        "attention_norm": "decoder.layers.{layer}.self_attn_layer_norm",
        "q": "decoder.layers.{layer}.self_attn.q_proj",
        "k": "decoder.layers.{layer}.self_attn.k_proj",
        "v": "decoder.layers.{layer}.self_attn.v_proj",
        "output": "decoder.layers.{layer}.self_attn.out_proj",
        "mlp_norm": "decoder.layers.{layer}.final_layer_norm",
        "up": "decoder.layers.{layer}.fc1",
        "down": "decoder.layers.{layer}.fc2",
    },
    prefix="model.",
)
_GPT2_HF = Naming(
    {
        "embedding": "wte",
        "positions": "wpe",
        "norm": "ln_f",
        "head": "lm_head",
        "attention_norm": "h.{layer}.ln_1",
        "qkv": "h.{layer}.attn.c_attn",
        "output": "h.{layer}.attn.c_proj",
        "mlp_norm": "h.{layer}.ln_2",
        "up": "h.{layer}.mlp.c_fc",
        "down": "h.{layer}.mlp.c_proj",
    },
    transposed=frozenset({"qkv", "output", "up", "down"}),
    prefix="transformer.",
    ignored=re.compile(r".*\.attn\.(masked_)?bias"),
)
_ROTARY_GGUF = {
    "embedding": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "rope_factors": "rope_freqs",
    "attention_norm": "blk.{layer}.attn_norm",
    "q": "blk.{layer}.attn_q",
    "k": "blk.{layer}.attn_k",
    "v": "blk.{layer}.attn_v",
    "q_norm": "blk.{layer}.attn_q_norm",
    "k_norm": "blk.{layer}.attn_k_norm",
    "output": "blk.{layer}.attn_output",
    "mlp_norm": "blk.{layer}.ffn_norm",
    "gate": "blk.{layer}.ffn_gate",
    "up": "blk.{layer}.ffn_up",
    "down": "blk.{layer}.ffn_down",
}
_GPT2_GGUF = {
    "embedding": "token_embd",
    "positions": "position_embd",
    "norm": "output_norm",
    "head": "output",
    "attention_norm": "blk.{layer}.attn_norm",
    "qkv": "blk.{layer}.attn_qkv",
    "output": "blk.{layer}.attn_output",
    "mlp_norm": "blk.{layer}.ffn_norm",
    "up": "blk.{layer}.ffn_up",
    "down": "blk.{layer}.ffn_down",
}
_NAMINGS = {
    ("hf", "llama"): _LLAMA_HF,
    ("hf", "mistral"): _LLAMA_HF,
    ("hf", "qwen2"): _LLAMA_HF,
    ("hf", "qwen3"): _LLAMA_HF,
    ("hf", "opt"): _OPT_HF,
    ("hf", "gpt2"): _GPT2_HF,
    # llama.cpp rotates neighbouring dimensions in this architecture and in none of the others.
    ("gguf", "llama"): Naming(_ROTARY_GGUF, interleaved=frozenset({"q", "k"})),
    ("gguf", "qwen2"): Naming(_ROTARY_GGUF),
    ("gguf", "qwen3"): Naming(_ROTARY_GGUF),
    ("gguf", "gpt2"): Naming(_GPT2_GGUF),
}


def naming(kind: str, family: str) -> Naming:
    """The names of `family` in files of `kind`, "hf" or "gguf"."""
    try:
        return _NAMINGS[kind, family]
    except KeyError:
        raise UnsupportedModelError(
            f"models of family {family!r} are not supported in {kind} files", field="model_type"
        ) from None
