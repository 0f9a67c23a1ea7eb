from pathlib import Path

import pytest
import tiny_vocabularies
from transformers import GPT2Tokenizer

from pdserve.errors import InvalidRequestError, UnsupportedModelError
from pdserve.models.source import ModelSource
from pdserve.text.chat_template import Message
from pdserve.text.tokenizer import Tokenizer

LONG = "The quick brown fox jumps over the lazy dog"


def load(directory: Path) -> Tokenizer:
    return Tokenizer.load(ModelSource("tiny", "hf", directory))


def test_a_directory_yields_its_tokens_ends_and_default_template(tmp_path: Path) -> None:
    tiny_vocabularies.write_hugging_face(tmp_path)
    tokenizer = load(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (1, (0, 7))
    assert tokenizer.chat([Message("user", "hi")]) == tokenizer.encode("<|start|>hi")


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    tiny_vocabularies.write_hugging_face(tmp_path)
    tokenizer = load(tmp_path)
    assert tokenizer.decode(tokenizer.encode(LONG)) == LONG


def test_a_template_file_wins_over_the_settings(tmp_path: Path) -> None:
    tiny_vocabularies.write_hugging_face(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].role }}")
    tokenizer = load(tmp_path)
    assert tokenizer.chat([Message("user", "hi")]) == tokenizer.encode("user")


def test_vocab_and_merges_are_enough(tmp_path: Path) -> None:
    tiny_vocabularies.write_vocab_and_merges(tmp_path)
    vocab, merges = tiny_vocabularies.byte_level_bpe()
    reference = GPT2Tokenizer(vocab=vocab, merges=merges)
    tokenizer = load(tmp_path)
    ids = tokenizer.encode(LONG)
    assert ids == [1, *reference.encode(LONG, add_special_tokens=False)]
    assert tokenizer.decode(ids) == LONG


def test_a_model_without_template_says_so(tmp_path: Path) -> None:
    tiny_vocabularies.write_vocab_and_merges(tmp_path)
    with pytest.raises(InvalidRequestError, match="no chat template") as caught:
        load(tmp_path).chat([Message("user", "hi")])
    assert caught.value.field == "messages"


def test_lone_surrogates_are_refused(tmp_path: Path) -> None:
    tiny_vocabularies.write_hugging_face(tmp_path)
    with pytest.raises(InvalidRequestError, match="not valid Unicode"):
        load(tmp_path).encode("ok \ud83d")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("tokenizer.json", "{}", r"tokenizer\.json cannot be read"),
        ("tokenizer.json", "no json", r"tokenizer\.json cannot be read"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not valid JSON"),
        ("tokenizer_config.json", "[]", r"must hold a JSON object"),
        ("vocab.json", "{}", r"no tokenizer\.json"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, text: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UnsupportedModelError, match=text):
        load(tmp_path)


def test_merges_that_do_not_fit_the_vocabulary_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(UnsupportedModelError, match="merge"):
        load(tmp_path)
