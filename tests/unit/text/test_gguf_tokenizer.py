import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_vocabularies
from hypothesis import given
from hypothesis import strategies as st
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

from pdserve.errors import UnsupportedModelError
from pdserve.models.source import ModelSource
from pdserve.text.tokenizer import Tokenizer

TEXTS = [
    "",
    "The quick brown fox, isn't IT'S?",
    "1234567 890  12",
    " leading, trailing  ",
    "a\n\n b\r\n\tc\t\t\n   ",
    "<|start|>system\nbe<|end|>\n<|start|>",
    "你好世界 Füße naïve 🙂👩‍👩‍👧 \u200b",
    "def f(x):\n    return {'a': x[1:]}  # ok\n",
]


def load(path: Path) -> Tokenizer:
    return Tokenizer.load(ModelSource("tiny", "gguf", path))


def load_reference(path: Path) -> Callable[[str], list[int]]:
    architecture, vocabulary, _ = get_gguf_tokenizer(str(path))
    backend, _ = convert_gguf_tokenizer(architecture, vocabulary)
    return lambda text: backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("pre", ["gpt-2", "default", "llama-bpe", "qwen2"])
def test_byte_level_texts_are_cut_as_transformers_cuts_them(tmp_path: Path, pre: str) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_byte_level_gguf(path, pre)
    tokenizer, reference = load(path), load_reference(path)
    for text in TEXTS:
        assert tokenizer.encode(text) == reference(text), text


def test_smollm_keeps_every_digit_apart(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_byte_level_gguf(path, "smollm")
    tokenizer = load(path)
    ids = tokenizer.encode("1234567 89")
    assert [tokenizer.token_text(token_id) for token_id in ids] == list("1234567 89")


def test_qwen2_composes_characters(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_byte_level_gguf(path, "qwen2")
    tokenizer = load(path)
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("caf\u00e9")


def test_flags_frame_the_text(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_byte_level_gguf(path, "gpt-2", add_bos=True)
    tokenizer = load(path)
    ids = tokenizer.encode("The fox")
    assert ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.encode("The fox", add_special_tokens=False) == ids[1:]
    assert tokenizer.eos_token_ids == (0,)
    assert tokenizer.decode([*ids, 0]) == "The fox"


def test_special_tokens_are_found_in_text_and_hidden_in_output(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_byte_level_gguf(path, "gpt-2")
    tokenizer = load(path)
    ids = tokenizer.encode("a<|end|>b")
    assert ids[1] == 0
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.token_text(0) == "<|end|>"
    assert tokenizer.token_text(tokenizer.vocab_size + 5) == ""


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv"])
def test_other_kinds_of_tokenizers_are_refused_by_name(tmp_path: Path, model: str) -> None:
    path = tmp_path / "foreign.gguf"
    tiny_vocabularies.write_foreign_gguf(path, model, ["a", "b"])
    with pytest.raises(UnsupportedModelError, match=model):
        load(path)


def test_an_unknown_pre_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_byte_level_gguf(path, "no-such-pre")
    with pytest.raises(UnsupportedModelError, match="no-such-pre"):
        load(path)


def test_a_file_without_merges_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    tiny_vocabularies.write_foreign_gguf(path, "gpt2", ["a", "b"])
    with pytest.raises(UnsupportedModelError, match="merges"):
        load(path)


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("sentence_piece") / "tiny.gguf"
    tiny_vocabularies.write_sentence_piece_gguf(path)
    return load(path)


def best_first(text: str) -> list[str]:
    """SentencePiece's algorithm word for word: join the adjacent pair that scores highest."""
    tokens, scores, types = tiny_vocabularies.sentence_pieces()
    score_of = {
        token: score
        for token, score, kind in zip(tokens, scores, types, strict=True)
        if kind == tiny_vocabularies.NORMAL
    }
    parts = list(("▁" + text.replace(" ", "▁")) if text else "")
    while True:
        joins = [
            (score_of[left + right], -place)
            for place, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in score_of
        ]
        if not joins:
            break
        place = -max(joins)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [
        piece
        for part in parts
        for piece in ([part] if part in score_of else [f"<0x{b:02X}>" for b in part.encode()])
    ]


@given(st.text("thequickra 0ß你🙂\n", max_size=24))
def test_sentence_piece_joins_the_best_pair_first(sentence_piece: Tokenizer, text: str) -> None:
    tokens, _, _ = tiny_vocabularies.sentence_pieces()
    ids = sentence_piece.encode(text)
    assert ids[0] == 1  # a start token is this kind's default
    assert [tokens[token_id] for token_id in ids[1:]] == best_first(text)
    assert sentence_piece.decode(ids) == text


def test_user_defined_tokens_stay_whole(sentence_piece: Tokenizer) -> None:
    ids = sentence_piece.encode("a<tool>b")
    assert [sentence_piece.token_text(token_id) for token_id in ids].count("<tool>") == 1
