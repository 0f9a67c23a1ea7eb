"""Text to token ids and back."""

from collections.abc import Iterable, Sequence

from pdserve.errors import InvalidRequestError
from pdserve.models.source import ModelSource
from pdserve.text.chat_template import ChatTemplate, Message
from pdserve.text.detokenizer import Detokenizer
from pdserve.text.gguf_tokenizer import load_gguf
from pdserve.text.hf_tokenizer import load_hf
from pdserve.text.token_bytes import token_bytes
from pdserve.text.vocabulary import Vocabulary


class Tokenizer:
    """The tokenizer of one model. It has no state that a call changes.

    `vocab_size` is the highest token id + 1; a model's embedding may have more rows.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._backend = vocabulary.backend
        self._table = token_bytes(vocabulary.backend)
        self._template = (
            ChatTemplate(vocabulary.chat_template, vocabulary.special_tokens)
            if vocabulary.chat_template
            else None
        )
        self.vocab_size = len(self._table.of)
        self.bos_token_id = vocabulary.bos_token_id
        self.eos_token_ids = vocabulary.eos_token_ids

    @classmethod
    def load(cls, source: ModelSource) -> "Tokenizer":
        """The tokenizer of the model; `UnsupportedModelError` names what is not supported."""
        load = {"hf": load_hf, "gguf": load_gguf}[source.kind]
        return cls(load(source.path))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a prompt; the texts of special tokens in it become those tokens.

        `add_special_tokens` frames the text as the model expects (bos, mostly). Raises
        `InvalidRequestError` for text that UTF-8 cannot hold (lone surrogates).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"the text is not valid Unicode: {error.reason} at character {error.start}",
                field="prompt",
            ) from error
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation, ready for the assistant's answer.

        Raises `InvalidRequestError` (field `messages`) for a model without chat template and for
        messages that its template refuses.
        """
        if self._template is None:
            raise InvalidRequestError(
                "this model has no chat template; send a plain prompt instead", field="messages"
            )
        # The template writes the special tokens itself.
        return self.encode(self._template.render(messages), add_special_tokens=False)

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of `token_ids`, without special tokens; bytes that are no UTF-8 are U+FFFD."""
        detokenizer = self.detokenizer()
        return detokenizer.push(token_ids) + detokenizer.flush()

    def detokenizer(self, *, continuing: bool = False) -> Detokenizer:
        """A new incremental `decode`; `continuing` where the text follows a prompt."""
        return Detokenizer(self._table, continuing=continuing)

    def token_text(self, token_id: int) -> str:
        """The text of one token, special ones included; empty for an unused id."""
        data = self._table.of[token_id] if token_id < self.vocab_size else b""
        return data.decode("utf-8", "replace") or self._backend.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, for a special one those of its name; none for an unused id."""
        data = self._table.of[token_id] if token_id < self.vocab_size else b""
        return data or (self._backend.id_to_token(token_id) or "").encode()
