"""Small vocabularies in the formats that models come in."""

import json
from collections.abc import Sequence
from pathlib import Path

import gguf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 1234567 o'clock, isn't it?",
    "def f(x):\n    return x * 2  # comment\n\n\nclass A:\n\tpass\r\n",
    "Füße, naïve café, 你好世界, Привет мир, 🙂🙃 👩‍👩‍👧",
] * 8
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def byte_level_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens and merges of a small byte-level BPE trained on CORPUS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def write_byte_level_gguf(path: Path, pre: str, *, add_bos: bool = False) -> None:
    """A header with no tensors; <|start|> is bos, <|end|> is eos, both special."""
    vocab, merges = byte_level_bpe()
    tokens = sorted(vocab, key=lambda token: vocab[token])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL, CONTROL] + [NORMAL] * (len(tokens) - 2))
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(vocab["<|start|>"])
    writer.add_eos_token_id(vocab["<|end|>"])
    writer.add_add_bos_token(add_bos)
    _finish(writer)


def write_hugging_face(directory: Path) -> None:
    """tokenizer.json and its companions, as transformers lays them out."""
    vocab, merges = byte_level_bpe()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|start|>"])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "bos_token": {"content": "<|start|>", "__type": "AddedToken"},
        "eos_token": "<|end|>",
        "chat_template": [
            {"name": "tool_use", "template": "not this"},
            {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
        ],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "config.json").write_text(json.dumps({"eos_token_id": [vocab["<|end|>"], 7]}))


def write_vocab_and_merges(directory: Path) -> None:
    """GPT-2's older format, framed as OPT's is."""
    vocab, merges = byte_level_bpe()
    (directory / "vocab.json").write_text(json.dumps(vocab))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n")
    settings = {"bos_token": "<|start|>", "eos_token": "<|end|>", "add_bos_token": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def sentence_pieces() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types in Llama 2's order: special, bytes, pieces, characters."""
    pieces = ["▁t", "he", "▁the", "▁q", "in", "er", "▁a", "qu", "▁qu", "ick", "ck", "▁▁", "▁▁▁▁"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?0123456789üß你"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    scores = [0.0] * len(tokens)
    for rank, token in enumerate([*pieces, *letters]):
        tokens.append(token)
        scores.append(-float(rank))
        types.append(NORMAL)
    tokens.append("<tool>")
    scores.append(0.0)
    types.append(USER_DEFINED)
    return tokens, scores, types


def write_sentence_piece_gguf(path: Path) -> None:
    """A header with no tensors; add_bos is left to its default."""
    tokens, scores, types = sentence_pieces()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    _finish(writer)


def write_foreign_gguf(path: Path, model: str, tokens: Sequence[str]) -> None:
    """A header whose tokenizer is of a kind that is not supported."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    _finish(writer)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
