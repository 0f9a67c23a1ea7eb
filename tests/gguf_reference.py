"""The default model in transformers, read by transformers' own GGUF converter."""

from functools import cache
from pathlib import Path
from unittest.mock import patch

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint


@cache
def load_reference(path: Path) -> torch.nn.Module:
    """SmolLM2-135M in float32 from `path`; `from_pretrained(gguf_file=...)` wants accelerate."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    # Its converter makes the same table of names for every module anew: half of its time.
    with patch("gguf.get_tensor_name_map", cache(gguf.get_tensor_name_map)):
        loaded = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    missing, unexpected = model.load_state_dict(loaded["tensors"], strict=False)
    assert missing == ["lm_head.weight"], "only the tied head is absent"
    assert not unexpected
    model.tie_weights()
    return model
