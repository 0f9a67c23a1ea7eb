"""What a tokenizer is made from, wherever it was read."""

from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A backend tokenizer and what the model's files say about its special tokens.

    `special_tokens` maps names as chat templates use them (`bos_token`, `eos_token`, …) to texts.
    """

    backend: tokenizers.Tokenizer
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    special_tokens: Mapping[str, str]
    chat_template: str | None
