"""Token ids to text while they arrive."""

import codecs
from collections.abc import Iterable

from pdserve.text.token_bytes import TokenBytes


class Detokenizer:
    """Turns the tokens of one sequence into text, a few at a time.

    The pieces joined are `Tokenizer.decode` of all ids. Bytes that are no UTF-8 become U+FFFD, but
    an incomplete character at the end of what has arrived is held back. With `continuing` the text
    goes on after other text: a space in front of it, which a model that marks word starts writes
    and a whole text does without, is kept.
    """

    def __init__(self, table: TokenBytes, *, continuing: bool = False) -> None:
        self._of = table.of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._spaces_to_drop = 0 if continuing else table.leading_spaces

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that is now complete; ids without a token add nothing."""
        of = self._of
        data = b"".join([of[token_id] for token_id in token_ids if token_id < len(of)])
        return self._without_leading_spaces(self._utf8.decode(data))

    def flush(self) -> str:
        """What an incomplete character leaves at the end: U+FFFD or nothing. Call it once."""
        return self._utf8.decode(b"", final=True)

    def _without_leading_spaces(self, text: str) -> str:
        if not self._spaces_to_drop or not text:
            return text
        kept = text[: self._spaces_to_drop].lstrip(" ") + text[self._spaces_to_drop :]
        # A first piece that is all dropped spaces leaves the rest to be dropped from the next.
        self._spaces_to_drop = self._spaces_to_drop - len(text) if not kept else 0
        return kept
