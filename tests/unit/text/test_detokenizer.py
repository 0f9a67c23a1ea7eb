from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_vocabularies
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from pdserve.errors import UnsupportedModelError
from pdserve.models.source import ModelSource
from pdserve.text.token_bytes import token_bytes
from pdserve.text.tokenizer import Tokenizer

TOKEN_IDS = st.lists(st.lists(st.integers(0, 620), max_size=5), max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module")
def byte_level(folder: Path) -> Tokenizer:
    tiny_vocabularies.write_hugging_face(folder)
    return Tokenizer.load(ModelSource("tiny", "hf", folder))


@pytest.fixture(scope="module")
def sentence_piece(folder: Path) -> Tokenizer:
    path = folder / "tiny.gguf"
    tiny_vocabularies.write_sentence_piece_gguf(path)
    return Tokenizer.load(ModelSource("tiny", "gguf", path))


def streamed(tokenizer: Tokenizer, splits: list[list[int]]) -> Iterator[str]:
    detokenizer = tokenizer.detokenizer()
    for ids in splits:
        yield detokenizer.push(ids)
    yield detokenizer.flush()


@given(TOKEN_IDS)
def test_the_pieces_joined_are_what_tokenizers_decodes(
    byte_level: Tokenizer, folder: Path, splits: list[list[int]]
) -> None:
    ids = [token_id for split in splits for token_id in split]
    whole = byte_level.decode(ids)
    assert whole == Backend.from_file(str(folder / "tokenizer.json")).decode(ids)
    assert "".join(streamed(byte_level, splits)) == whole


@given(TOKEN_IDS)
def test_the_pieces_joined_are_the_whole_with_byte_fallback(
    sentence_piece: Tokenizer, splits: list[list[int]]
) -> None:
    ids = [token_id for split in splits for token_id in split]
    assert "".join(streamed(sentence_piece, splits)) == sentence_piece.decode(ids)


@pytest.mark.parametrize("name", ["byte_level", "sentence_piece"])
@given(text=st.text(st.characters(codec="utf-8"), max_size=12))
def test_characters_are_never_shown_in_parts(
    request: pytest.FixtureRequest, name: str, text: str
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode(text)
    pieces = list(streamed(tokenizer, [[token_id] for token_id in ids]))
    assert "".join(pieces) == text
    assert pieces[-1] == ""
    assert "".join(pieces).count("\ufffd") == text.count("\ufffd")


def test_an_emoji_appears_with_its_last_byte(sentence_piece: Tokenizer) -> None:
    ids = sentence_piece.encode("🙂", add_special_tokens=False)
    assert list(streamed(sentence_piece, [[token_id] for token_id in ids])) == [
        "", "", "", "", "🙂", ""
    ]  # fmt: skip


def test_a_character_that_never_completes_is_replaced_at_the_end(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("鬱")
    assert len(ids) > 1
    assert list(streamed(byte_level, [ids[:-1]])) == ["", "\ufffd"]


def test_text_that_continues_a_prompt_keeps_its_first_space(sentence_piece: Tokenizer) -> None:
    ids = sentence_piece.encode("the", add_special_tokens=False)
    assert sentence_piece.detokenizer().push(ids) == "the"
    assert sentence_piece.detokenizer(continuing=True).push(ids) == " the"


def test_other_decoders_are_refused_by_name() -> None:
    backend = Backend(models.WordLevel({"a": 0}, "a"))
    with pytest.raises(UnsupportedModelError, match="no decoder"):
        token_bytes(backend)
    backend.decoder = decoders.WordPiece()
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        token_bytes(backend)
