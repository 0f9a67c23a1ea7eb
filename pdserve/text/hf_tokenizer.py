"""The tokenizer of a Hugging Face directory: tokenizer.json, or vocab.json and merges.txt."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from pdserve.errors import UnsupportedModelError
from pdserve.text.byte_level import byte_level_tokenizer
from pdserve.text.vocabulary import Vocabulary

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def load_hf(directory: Path) -> Vocabulary:
    """The vocabulary in the directory; `UnsupportedModelError` where a file is missing or bad."""
    # The later file is the one that people edit by hand, so it wins.
    settings = {
        **_read_json(directory / "special_tokens_map.json"),
        **_read_json(directory / "tokenizer_config.json"),
    }
    special = {name: text for name in _SPECIAL_NAMES if (text := _token_text(settings.get(name)))}
    tokenizer = _backend(directory, settings, special)
    # Settings of training, which a tokenizer.json may still carry.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Vocabulary(
        backend=tokenizer,
        bos_token_id=_id_of(tokenizer, special.get("bos_token")),
        eos_token_ids=_end_ids(directory, _id_of(tokenizer, special.get("eos_token"))),
        special_tokens=special,
        chat_template=_chat_template(directory, settings),
    )


def _backend(directory: Path, settings: Mapping[str, Any], special: Mapping[str, str]) -> Tokenizer:
    path = directory / "tokenizer.json"
    if path.is_file():
        try:
            return Tokenizer.from_str(path.read_text("utf-8"))
        except Exception as error:  # tokenizers raises nothing narrower
            raise UnsupportedModelError(f"{path} cannot be read: {error}") from error
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return _from_merges(directory, settings, special)
    raise UnsupportedModelError(
        f"{directory} has no tokenizer.json, and no vocab.json with merges.txt either"
    )


def _from_merges(
    directory: Path, settings: Mapping[str, Any], special: Mapping[str, str]
) -> Tokenizer:
    """GPT-2's own format, which OPT's checkpoints still come in."""
    lines = (directory / "merges.txt").read_text("utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(left, right) for left, right in pairs]
    tokenizer = byte_level_tokenizer(_read_json(directory / "vocab.json"), merges, "gpt-2")
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in set(special.values())]
    )
    bos = special.get("bos_token")
    if bos and settings.get("add_bos_token"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"],
            pair=[bos, "$A", "$B"],
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    return tokenizer


def _end_ids(directory: Path, eos: int | None) -> tuple[int, ...]:
    """The tokenizer's end token and those that generation_config.json or config.json name."""
    ids = [] if eos is None else [eos]
    for name in ("generation_config.json", "config.json"):
        named = _read_json(directory / name).get("eos_token_id")
        ids += named if isinstance(named, list) else [] if named is None else [named]
    return tuple(dict.fromkeys(ids))


def _chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template


def _token_text(value: Any) -> str | None:
    """A token is written as its text, or as an object with the text as `content`."""
    return value.get("content") if isinstance(value, dict) else value


def _id_of(tokenizer: Tokenizer, token: str | None) -> int | None:
    return None if token is None else tokenizer.token_to_id(token)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UnsupportedModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise UnsupportedModelError(f"{path} must hold a JSON object")
    return document
