"""The tokens of one request so far, and the text that they make."""

from collections.abc import Sequence

from pdserve.rpc.v1 import types_pb2
from pdserve.text.detokenizer import Detokenizer
from pdserve.text.stop import StopStrings


class DiscontinuityError(Exception):
    """A token came twice, or one is missing."""


class Output:
    """Joins tokens of any number of attempts into one sequence, and that into text.

    The first `min_tokens` tokens cannot be part of a stop string. `token_ids` is the output so far;
    `stop` the stop string that ended it, None while none did.
    """

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str], min_tokens: int) -> None:
        self.token_ids: list[int] = []
        self._detokenizer = detokenizer
        self._stops = StopStrings(stops) if stops else None
        self._min_tokens = min_tokens

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text."""
        return self._stops.matched if self._stops else None

    def take(self, tokens: Sequence[types_pb2.Token]) -> tuple[str, Sequence[types_pb2.Token]]:
        """The text that is complete now, and the tokens that count: those up to a stop string.

        Raises `DiscontinuityError`, and takes nothing, unless `tokens` go on where the last ended.
        """
        for expected, token in enumerate(tokens, len(self.token_ids)):
            if token.index != expected:
                raise DiscontinuityError(f"token {token.index} came where {expected} was due")
        if self._stops is None:
            ids = [token.id for token in tokens]
            self.token_ids += ids
            return self._detokenizer.push(ids), tokens
        return self._take_until_stop(tokens, self._stops)

    def flush(self) -> str:
        """The text that was held back, now that no token follows."""
        text = self._detokenizer.flush()
        if self._stops is None:
            return text
        return self._stops.push(text) + self._stops.flush()

    def _take_until_stop(
        self, tokens: Sequence[types_pb2.Token], stops: StopStrings
    ) -> tuple[str, Sequence[types_pb2.Token]]:
        text = ""
        for count, token in enumerate(tokens, 1):
            self.token_ids.append(token.id)
            piece = self._detokenizer.push((token.id,))
            text += piece if len(self.token_ids) <= self._min_tokens else stops.push(piece)
            if stops.matched is not None:
                return text, tokens[:count]
        return text, tokens
