"""The tokenizer that a GGUF file describes in its metadata (keys `tokenizer.ggml.*`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from pdserve.errors import UnsupportedModelError
from pdserve.models.gguf_metadata import read_metadata
from pdserve.text.byte_level import byte_level_tokenizer
from pdserve.text.sentence_piece import sentence_piece_tokenizer
from pdserve.text.vocabulary import Vocabulary

# Token types, as the GGUF specification numbers them.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
# Files from before the flag existed: these models expect a start token.
_STARTS_WITH_BOS = ("llama-bpe", "llama3", "llama-v3")
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SPECIAL_NAMES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def load_gguf(path: Path) -> Vocabulary:
    """The vocabulary in the GGUF file; `UnsupportedModelError` where it is of another kind."""
    metadata = read_metadata(path)
    fields = _Fields(metadata, path)
    tokens: list[str] = fields.require("tokens")
    tokenizer, add_bos = _build(fields, tokens)
    _add_tokens(tokenizer, tokens, fields.get("token_type", ()))
    bos, eos = fields.get("bos_token_id"), fields.get("eos_token_id")
    tokenizer.post_processor = _frame(
        tokens,
        bos if fields.get("add_bos_token", add_bos) else None,
        eos if fields.get("add_eos_token", False) else None,
    )
    ends = [fields.get(key) for key in _END_KEYS]
    return Vocabulary(
        backend=tokenizer,
        bos_token_id=bos,
        eos_token_ids=tuple(dict.fromkeys(end for end in ends if end is not None)),
        special_tokens={
            name: tokens[fields.get(key)]
            for name, key in _SPECIAL_NAMES.items()
            if fields.get(key) is not None
        },
        chat_template=metadata.get("tokenizer.chat_template"),
    )


class _Fields:
    """The keys under `tokenizer.ggml.`."""

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata = metadata
        self._path = path

    def get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}", default)

    def require(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise UnsupportedModelError(f"{self._path} has no tokenizer.ggml.{key}")
        return value


def _build(fields: _Fields, tokens: Sequence[str]) -> tuple[Tokenizer, bool]:
    """The tokenizer without added tokens, and whether it starts texts with bos by default."""
    kind = fields.require("model")
    if kind == "gpt2":
        pre = fields.get("pre", "default")
        vocab = {token: index for index, token in enumerate(tokens)}
        return byte_level_tokenizer(vocab, _merges(fields), pre), pre in _STARTS_WITH_BOS
    if kind == "llama":
        unknown = fields.get("unknown_token_id")
        types = fields.get("token_type") or [_NORMAL] * len(tokens)
        tokenizer = sentence_piece_tokenizer(
            tokens,
            fields.require("scores"),
            [kind in (_NORMAL, _USER_DEFINED) for kind in types],
            None if unknown is None else tokens[unknown],
            space_prefix=fields.get("add_space_prefix", True),
        )
        return tokenizer, True
    raise UnsupportedModelError(
        f"tokenizer.ggml.model {kind!r} is not supported; supported: gpt2, llama"
    )


def _merges(fields: _Fields) -> list[tuple[str, str]]:
    pairs = (merge.partition(" ") for merge in fields.require("merges"))
    return [(left, right) for left, _, right in pairs]


def _add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Makes control tokens special, and user-defined ones whole wherever they appear."""
    of_type: dict[int, list[AddedToken]] = {_CONTROL: [], _USER_DEFINED: []}
    for token, kind in zip(tokens, types, strict=False):
        if kind in of_type:
            added = AddedToken(token, normalized=False, special=kind == _CONTROL)
            of_type[kind].append(added)
    tokenizer.add_special_tokens(of_type[_CONTROL])
    tokenizer.add_tokens(of_type[_USER_DEFINED])


def _frame(tokens: Sequence[str], bos: int | None, eos: int | None) -> processors.PostProcessor:
    """Puts bos before and eos after a text; None: not."""
    before = [] if bos is None else [(tokens[bos], bos)]
    after = [] if eos is None else [(tokens[eos], eos)]
    single = [*(token for token, _ in before), "$A", *(token for token, _ in after)]
    return processors.TemplateProcessing(
        single=single, pair=[*single, "$B"], special_tokens=[*before, *after]
    )
