"""Log probabilities in the two forms that OpenAI has for them."""

from collections.abc import Iterable
from typing import Any

from pdserve.rpc.v1 import types_pb2
from pdserve.text.tokenizer import Tokenizer

# JSON has no infinity; this is what OpenAI writes for a token that cannot be.
_LEAST = -9999.0


def chat_logprobs(tokens: Iterable[types_pb2.Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """The `logprobs` of a chat choice, or of a chunk of one."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(token_id)
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": _finite(logprob),
            "bytes": list(data),
        }

    content = [
        entry(token.id, token.logprob)
        | {"top_logprobs": [entry(each.token_id, each.logprob) for each in token.top_logprobs]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """The `logprobs` of one choice of a completion, in pieces as its tokens come."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(continuing=True)
        self._offset = 0

    def of(self, tokens: Iterable[types_pb2.Token]) -> dict[str, list[Any]]:
        """The entries of tokens that go on where the last ended.

        Offsets count characters of the choice's text; a token that only goes on with a character
        begins where the character does.
        """
        piece: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for token in tokens:
            top = {self._name(each.token_id): _finite(each.logprob) for each in token.top_logprobs}
            name, logprob = self._name(token.id), _finite(token.logprob)
            piece["tokens"].append(name)
            piece["token_logprobs"].append(logprob)
            piece["top_logprobs"].append(top | {name: logprob})
            piece["text_offset"].append(self._offset)
            self._offset += len(self._detokenizer.push((token.id,)))
        return piece

    def _name(self, token_id: int) -> str:
        """The token's text; its bytes where they are no text, so that names stay distinct."""
        data = self._tokenizer.token_bytes(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float) -> float:
    return logprob if logprob >= _LEAST else _LEAST  # NaN fails the comparison
