"""What is loaded from files, and what is refused, with which words."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    FAMILIES,
    Text,
    make_checkpoint,
    make_pool,
    random_tokens,
    reference_logits,
    run,
    source_of,
)

from pdserve.engine.loader import LoadedModel, load_model
from pdserve.errors import UnsupportedModelError
from pdserve.models.read import read_config
from pdserve.models.source import ModelSource, resolve_model
from tests.gguf_reference import load_reference

CPU = torch.device("cpu")
BLOCK = 16


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def load(directory: Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    return load_model(source_of(directory), dtype, CPU)


def last_logits(model: LoadedModel, tokens: list[int]) -> torch.Tensor:
    blocks = -(-len(tokens) // BLOCK)
    pool = make_pool(model, blocks=blocks, block_size=BLOCK)
    return run(model, pool, [Text(tokens, range(blocks)).next_span(len(tokens))])[0]


def edit_tensors(directory: Path, **changes: torch.Tensor | None) -> None:
    """Replaces tensors (`__` for `.`) of a checkpoint; None removes one."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def test_shards_equal_one_file(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path / "one")
    make_checkpoint("llama", tmp_path / "many", shard_size="100KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    one, many = load(tmp_path / "one"), load(tmp_path / "many")
    assert one.fingerprint == many.fingerprint
    tokens = random_tokens(20)
    assert torch.equal(last_logits(one, tokens), last_logits(many, tokens))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path, shard_size="100KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UnsupportedModelError, match=shard.name):
        load(tmp_path)


def test_shards_outside_the_directory_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    make_checkpoint("llama", directory, shard_size="100KB")
    outside = tmp_path / "outside.safetensors"
    next(directory.glob("model-*.safetensors")).rename(outside)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../outside.safetensors"}}))
    with pytest.raises(UnsupportedModelError, match=r"\.\./outside"):
        load(directory)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameter_count_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    reference = make_checkpoint(family, tmp_path)
    seen: list[tuple[int, int]] = []
    model = load_model(
        source_of(tmp_path), torch.float32, CPU, lambda done, total: seen.append((done, total))
    )
    expected = sum(parameter.numel() for parameter in reference.parameters())
    assert model.config.parameter_count == expected
    assert seen[-1] == (expected, expected)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_fingerprint_tells_models_apart_and_dtypes_not(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    fingerprint = load(tmp_path).fingerprint
    assert len(fingerprint) == 16
    assert load(tmp_path, torch.bfloat16).fingerprint == fingerprint
    name = "model.layers.1.mlp.down_proj.weight"
    weight = load_file(tmp_path / "model.safetensors")[name]
    edit_tensors(tmp_path, **{name: weight * 1.01})
    assert load(tmp_path).fingerprint != fingerprint


def test_gpt2_without_prefix_and_with_mask_buffers(tmp_path: Path) -> None:
    """The naming of the checkpoints that OpenAI's weights were first published in."""
    reference = make_checkpoint("gpt2", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
    save_file(tensors, path)
    tokens = random_tokens(20)
    expected = reference_logits(reference, tokens)[-1]
    torch.testing.assert_close(last_logits(load(tmp_path), tokens), expected, atol=1e-4, rtol=0)


def test_a_repeated_tied_head_is_accepted(tmp_path: Path) -> None:
    make_checkpoint("llama_tied", tmp_path)
    embedding = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    edit_tensors(tmp_path, lm_head__weight=embedding.clone())
    seen: list[tuple[int, int]] = []
    load_model(source_of(tmp_path), torch.float32, CPU, lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("tensor", "replacement", "message"),
    [
        ("model__layers__1__mlp__up_proj__weight", None, "no tensor model.layers.1.mlp.up_proj"),
        ("model__norm__weight", torch.ones(47), r"model.norm.weight is \[47\].*\[48\]"),
        ("model__layers__0__mlp__gate_proj__bias", torch.ones(80), "no place for: model.layers.0"),
        ("model__layers__3__mlp__up_proj__weight", torch.ones(80, 48), "no place for: .*layers.3"),
        ("lm_head__weight", None, "no tensor lm_head.weight"),
    ],
)
def test_tensors_that_do_not_fit_the_configuration_are_named(
    tmp_path: Path, tensor: str, replacement: torch.Tensor | None, message: str
) -> None:
    make_checkpoint("llama", tmp_path)
    edit_tensors(tmp_path, **{tensor: replacement})
    with pytest.raises(UnsupportedModelError, match=message):
        load(tmp_path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match=r"pickle.*safetensors"):
        load(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"neither model\.safetensors nor"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 1000])
def test_damaged_safetensors_are_named(tmp_path: Path, kept: int) -> None:
    make_checkpoint("llama", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UnsupportedModelError, match=r"model\.safetensors cannot be read"):
        load(tmp_path)


GGUF_FAMILIES = {
    "llama_tied": "llama",
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt2": "gpt2",
}


@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_gguf_equals_the_checkpoint_that_it_was_made_from(family: str, tmp_path: Path) -> None:
    reference = make_checkpoint(family, tmp_path / "hf")
    path = write_gguf(tmp_path / "model.gguf", GGUF_FAMILIES[family], tmp_path / "hf")
    model = load_model(ModelSource("tiny", "gguf", path), torch.float32, CPU)
    tokens = random_tokens(30)
    expected = reference_logits(reference, tokens)[-1]
    torch.testing.assert_close(last_logits(model, tokens), expected, atol=1e-4, rtol=0)


def test_gguf_carries_llama3_scaling_as_a_tensor(tmp_path: Path) -> None:
    reference = make_checkpoint("llama_llama3_rope", tmp_path / "hf")
    frequencies = reference.model.rotary_emb.inv_freq
    plain = 10000.0 ** (-torch.arange(0, 12, 2) / 12)
    path = write_gguf(tmp_path / "m.gguf", "llama", tmp_path / "hf", factors=plain / frequencies)
    model = load_model(ModelSource("tiny", "gguf", path), torch.float32, CPU)
    tokens = random_tokens(80)
    expected = reference_logits(reference, tokens)[-1]
    torch.testing.assert_close(last_logits(model, tokens), expected, atol=1e-4, rtol=0)


def test_a_cut_gguf_file_is_refused(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path / "hf")
    path = write_gguf(tmp_path / "model.gguf", "llama", tmp_path / "hf")
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(UnsupportedModelError, match=r"model\.gguf is cut short"):
        load_model(ModelSource("tiny", "gguf", path), torch.float32, CPU)


@pytest.mark.model
@pytest.mark.xdist_group("identity")  # where transformers' model is loaded already
def test_the_default_model_equals_transformers() -> None:
    source = resolve_model("smollm2-135m-instruct")
    model = load_model(source, torch.float32, CPU)
    tokens = random_tokens(40, seed=9, vocab=model.config.vocab_size)
    expected = reference_logits(load_reference(source.path), tokens)[-1]
    torch.testing.assert_close(last_logits(model, tokens), expected, atol=3e-4, rtol=0)


def write_gguf(
    path: Path, architecture: str, directory: Path, *, factors: torch.Tensor | None = None
) -> Path:
    """Converts a checkpoint as llama.cpp's converter does, without quantizing it."""
    config = read_config(source_of(directory))
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.layers)
    writer.add_head_count(config.heads)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_context_length(config.max_position)
    writer.add_vocab_size(config.vocab_size)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_head_count_kv(config.kv_heads)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_key_length(config.head_dim)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.layers)
    for name, tensor in load_file(directory / "model.safetensors").items():
        module, part = name.rsplit(".", 1)
        values = tensor.numpy()
        if architecture == "gpt2" and ".c_" in name and part == "weight":
            values = values.T
        if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
            halves = values.reshape(-1, 2, config.head_dim // 2, values.shape[-1])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(f"{names.get_name(module)}.{part}", np.ascontiguousarray(values))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
