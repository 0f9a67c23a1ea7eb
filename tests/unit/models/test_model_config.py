"""Configurations as published, and what is refused."""

from typing import Any

import pytest

from pdserve.errors import ConfigError, UnsupportedModelError
from pdserve.models.config import ModelConfig, RopeScaling
from pdserve.models.gguf_config import parse_gguf_config
from pdserve.models.hf_config import parse_hf_config

LLAMA31_8B = {
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
MISTRAL_7B = {
    "model_type": "mistral",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
OPT_125M = {
    "model_type": "opt",
    "activation_function": "relu",
    "bos_token_id": 2,
    "do_layer_norm_before": True,
    "eos_token_id": 2,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
GPT2 = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "layer_norm_epsilon": 1e-05,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}


def test_llama_31_as_published() -> None:
    config = parse_hf_config(LLAMA31_8B)
    assert config.parameter_count == 8_030_261_248
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    assert config.eos_token_ids == (128001, 128008, 128009)
    assert config.weight_bytes("bfloat16") == 2 * 8_030_261_248
    assert config.kv_bytes_per_token("bfloat16") == 2 * 32 * 8 * 128 * 2
    assert config.served_length() == 131072


def test_rope_parameters_of_transformers_5_mean_the_same() -> None:
    old = dict(LLAMA31_8B)
    scaling, theta = old.pop("rope_scaling"), old.pop("rope_theta")
    assert isinstance(scaling, dict)
    new = old | {"rope_parameters": scaling | {"rope_theta": theta}}
    assert parse_hf_config(new) == parse_hf_config(LLAMA31_8B)


@pytest.mark.parametrize(("config", "count"), [(OPT_125M, 125_239_296), (GPT2, 124_439_808)])
def test_published_sizes(config: dict[str, Any], count: int) -> None:
    assert parse_hf_config(config).parameter_count == count


def test_a_sliding_window_bounds_the_served_length() -> None:
    config = parse_hf_config(MISTRAL_7B)
    assert config.served_length() == 4096
    assert config.served_length(4096) == 4096
    with pytest.raises(UnsupportedModelError, match="sliding_window is 4096") as refused:
        config.served_length(4097)
    assert refused.value.field == "max_model_len"
    without = parse_hf_config(MISTRAL_7B | {"sliding_window": None})
    assert without.served_length(32768) == 32768


def test_mistral_without_the_key_has_its_default_window() -> None:
    absent = {key: value for key, value in MISTRAL_7B.items() if key != "sliding_window"}
    assert parse_hf_config(absent).sliding_window == 4096


def test_more_than_the_context_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2049.*context length is 2048"):
        parse_hf_config(OPT_125M).served_length(2049)


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (LLAMA31_8B, {"model_type": "mamba"}, "model_type is 'mamba'; supported: llama, mistral"),
        (LLAMA31_8B, {"model_type": None}, "model_type is None"),
        (LLAMA31_8B, {"hidden_size": None}, "hidden_size is missing"),
        (LLAMA31_8B, {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        (LLAMA31_8B, {"vocab_size": "many"}, "vocab_size is 'many'"),
        (LLAMA31_8B, {"num_hidden_layers": True}, "num_hidden_layers is True"),
        (LLAMA31_8B, {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        (LLAMA31_8B, {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        (LLAMA31_8B, {"eos_token_id": "x"}, "eos_token_id is 'x'"),
        (LLAMA31_8B, {"hidden_act": "mish"}, "hidden_act = 'mish'"),
        (LLAMA31_8B, {"rope_scaling": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        (LLAMA31_8B, {"rope_scaling": [8]}, r"rope_scaling is \[8\]"),
        (LLAMA31_8B, {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (LLAMA31_8B, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA31_8B, {"num_key_value_heads": 7}, "32 attention heads cannot share 7"),
        (LLAMA31_8B, {"head_dim": 63}, "head_dim is 63"),
        (OPT_125M, {"do_layer_norm_before": False}, "do_layer_norm_before = False"),
        (OPT_125M, {"word_embed_proj_dim": 512}, "word_embed_proj_dim = 512"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_what_would_be_computed_wrong_is_refused_by_name(
    base: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        parse_hf_config(base | change)


GGUF_LLAMA = {
    "general.architecture": "llama",
    "llama.embedding_length": 4096,
    "llama.block_count": 32,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "llama.feed_forward_length": 14336,
    "llama.context_length": 8192,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500000.0,
    "llama.rope.dimension_count": 128,
    "tokenizer.ggml.tokens": ["a"] * 128256,
    "tokenizer.ggml.bos_token_id": 128000,
    "tokenizer.ggml.eos_token_id": 128009,
    "tokenizer.ggml.eot_token_id": 128009,
}


def gguf(**changes: Any) -> ModelConfig:
    metadata = GGUF_LLAMA | {key.replace("__", "."): value for key, value in changes.items()}
    return parse_gguf_config(metadata, tie_embeddings=False)


def test_a_gguf_header_says_the_same_as_the_json() -> None:
    config = gguf()
    assert config.parameter_count == 8_030_261_248
    assert config.rope_theta == 500000.0
    assert config.vocab_size == 128256
    assert config.eos_token_ids == (128009,)


def test_linear_scaling_in_a_gguf_header() -> None:
    config = gguf(llama__rope__scaling__type="linear", llama__rope__scaling__factor=2.0)
    assert config.rope_scaling == RopeScaling("linear", 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general__architecture": "mamba"}, "general.architecture is 'mamba'"),
        ({"llama__rope__dimension_count": 64}, "dimension_count is 64 of 128"),
        ({"llama__rope__scaling__type": "yarn"}, "rope_type 'yarn'"),
        ({"llama__block_count": None}, "num_hidden_layers is missing"),
        ({"llama__expert_count": 8}, "expert_count"),
    ],
)
def test_gguf_headers_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        gguf(**change)
