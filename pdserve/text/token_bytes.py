"""The bytes that each token adds to a text, so that decoding is joining.

The decoder of a `tokenizers.Tokenizer` works on whole sequences. The models served here use one of
two: byte-level BPE, or SentencePiece with byte fallback; in both a token's bytes do not depend on
its neighbours, except that the second drops a space in front of the whole text.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from pdserve.errors import UnsupportedModelError
from pdserve.text.byte_level import BYTE_OF

_FALLBACK_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """`of[token_id]` are the token's bytes, none for a special token or an unused id.

    `leading_spaces` is how many spaces are dropped in front of a whole text.
    """

    of: tuple[bytes, ...]
    leading_spaces: int


def token_bytes(tokenizer: Tokenizer) -> TokenBytes:
    """The table of all tokens; `UnsupportedModelError` for a decoder of another kind."""
    steps = list(_decoder_steps(tokenizer))
    special = {
        token_id
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    spell = _byte_level if byte_level else _SentencePiece(steps)
    for token, token_id in vocabulary.items():
        if token_id not in special:
            table[token_id] = spell(token)
    return TokenBytes(tuple(table), sum(_leading_spaces(step) for step in steps))


def _decoder_steps(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    if tokenizer.decoder is None:
        raise UnsupportedModelError("the tokenizer has no decoder")
    # The parts of a decoder are only visible in its serialized form.
    pending = [json.loads(tokenizer.decoder.__getstate__())]
    while pending:
        step = pending.pop(0)
        if step["type"] == "Sequence":
            pending = [*step["decoders"], *pending]
        elif step["type"] in _KNOWN_STEPS:
            yield step
        else:
            raise UnsupportedModelError(f"tokenizer decoder {step['type']!r} is not supported")


_KNOWN_STEPS = ("ByteLevel", "Replace", "Metaspace", "ByteFallback", "Fuse", "Strip")


def _byte_level(token: str) -> bytes:
    try:
        return bytes([BYTE_OF[character] for character in token])
    except KeyError:  # an added token, which is spelled as it is
        return token.encode()


class _SentencePiece:
    """Spells tokens by the replacements and the byte fallback among a decoder's steps."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self._replacements = [
            (step["pattern"]["String"], step["content"])
            for step in steps
            if step["type"] == "Replace" and "String" in step["pattern"]
        ]
        self._replacements += [
            (step["replacement"], " ") for step in steps if step["type"] == "Metaspace"
        ]
        self._byte_fallback = any(step["type"] == "ByteFallback" for step in steps)

    def __call__(self, token: str) -> bytes:
        if self._byte_fallback and (match := _FALLBACK_BYTE.fullmatch(token)):
            return bytes([int(match[1], 16)])
        for pattern, content in self._replacements:
            token = token.replace(pattern, content)
        return token.encode()


def _leading_spaces(step: dict[str, Any]) -> int:
    if step["type"] == "Strip" and step["content"] == " ":
        return int(step["start"])
    return int(step["type"] == "Metaspace" and step["prepend_scheme"] != "never")
