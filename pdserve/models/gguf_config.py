"""Reads the header of a GGUF file into a `ModelConfig`.

The header's keys are llama.cpp's names for what `config.json` calls otherwise, so they are renamed
and then judged by the same rules.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pdserve.errors import UnsupportedModelError
from pdserve.models.config import ModelConfig
from pdserve.models.hf_config import parse_hf_config

_ROTARY = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
_GPT2 = {
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_inner": "feed_forward_length",
    "n_positions": "context_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}
_NAMES = {"llama": _ROTARY, "qwen2": _ROTARY, "qwen3": _ROTARY, "gpt2": _GPT2}


def parse_gguf_config(metadata: Mapping[str, Any], *, tie_embeddings: bool) -> ModelConfig:
    """The model that the header `metadata` describes.

    A GGUF file ties its embeddings by having no tensor `output.weight`; the header does not say it.
    Raises `UnsupportedModelError` naming the architecture or the key that prevents it.
    """
    architecture = metadata.get("general.architecture")
    names = _NAMES.get(str(architecture))
    if names is None:
        supported = ", ".join(_NAMES)
        raise UnsupportedModelError(
            f"general.architecture is {architecture!r}; supported in GGUF: {supported}",
            field="general.architecture",
            limit=supported,
        )
    config = {key: metadata.get(f"{architecture}.{name}") for key, name in names.items()}
    config |= {
        "model_type": architecture,
        "vocab_size": _vocab_size(metadata, str(architecture)),
        "tie_word_embeddings": tie_embeddings,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": _end_tokens(metadata),
    }
    if names is _ROTARY:
        config |= {"rope_scaling": _rope_scaling(metadata, str(architecture))}
    _refuse_variants(metadata, str(architecture))
    window = metadata.get(f"{architecture}.attention.sliding_window") or None
    return replace(parse_hf_config(config), sliding_window=window)


def _vocab_size(metadata: Mapping[str, Any], architecture: str) -> int | None:
    stated = metadata.get(f"{architecture}.vocab_size")
    return stated or len(metadata.get("tokenizer.ggml.tokens", ())) or None


def _end_tokens(metadata: Mapping[str, Any]) -> list[int]:
    """The end of text and, where the file has one, the end of a chat turn."""
    ids = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return list(dict.fromkeys(i for i in ids if i is not None))


def _rope_scaling(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any] | None:
    """Llama 3's scaling is not here: GGUF stores its factors as the tensor `rope_freqs.weight`."""
    kind = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "none":
        return None
    return {"rope_type": kind, "factor": metadata.get(f"{architecture}.rope.scaling.factor")}


def _refuse_variants(metadata: Mapping[str, Any], architecture: str) -> None:
    """Refuses mixtures of experts, and heads of which only a part is rotated."""
    experts = metadata.get(f"{architecture}.expert_count", 0)
    if experts:
        raise UnsupportedModelError(
            f"{architecture}.expert_count is {experts}; mixtures of experts are not supported",
            field="expert_count",
        )
    rotated = metadata.get(f"{architecture}.rope.dimension_count")
    heads = metadata.get(f"{architecture}.attention.head_count")
    if rotated is None or not heads:
        return
    whole = metadata.get(f"{architecture}.embedding_length", 0) // heads
    head_dim = metadata.get(f"{architecture}.attention.key_length", whole)
    if rotated != head_dim:
        raise UnsupportedModelError(
            f"{architecture}.rope.dimension_count is {rotated} of {head_dim}; partly rotated heads "
            f"are not supported",
            field="rope.dimension_count",
        )
