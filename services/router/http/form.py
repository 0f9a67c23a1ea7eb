"""What the two endpoints' answers differ in: the shape of choices, whole and in chunks."""

from collections.abc import Sequence
from typing import Any, Protocol

from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.text.tokenizer import Tokenizer
from services.router.http.answer import ChoiceText, finish_reason
from services.router.http.logprobs import CompletionLogprobs, chat_logprobs


class Form(Protocol):
    """How one request's choices are written; made anew for each request."""

    id_prefix: str
    whole_object: str
    chunk_object: str

    def choice(self, choice: ChoiceText) -> dict[str, Any]:
        """A choice that is complete."""
        ...

    def opening(self, index: int) -> dict[str, Any] | None:
        """What comes before the text of a choice; None: nothing."""
        ...

    def delta(self, index: int, delta: router_pb2.Delta) -> dict[str, Any]:
        """The next piece of a choice."""
        ...

    def closing(self, index: int, finished: router_pb2.Finished) -> dict[str, Any]:
        """What tells why a choice ended, behind its text."""
        ...


class ChatForm:
    """`chat.completion` and `chat.completion.chunk`."""

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._with_logprobs = logprobs

    def choice(self, choice: ChoiceText) -> dict[str, Any]:
        """A choice with its message."""
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs(choice.tokens),
            "finish_reason": finish_reason(choice.end),
        }

    def opening(self, index: int) -> dict[str, Any] | None:
        """Who speaks."""
        return _chunk(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, delta: router_pb2.Delta) -> dict[str, Any]:
        """More of the content."""
        return _chunk(index, {"content": delta.text}, self._logprobs(delta.tokens))

    def closing(self, index: int, finished: router_pb2.Finished) -> dict[str, Any]:
        """An empty delta with the reason."""
        return _chunk(index, {}, reason=finish_reason(finished))

    def _logprobs(self, tokens: Sequence[types_pb2.Token]) -> dict[str, Any] | None:
        return chat_logprobs(tokens, self._tokenizer) if self._with_logprobs else None


class CompletionForm:
    """`text_completion`, whole and in chunks."""

    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._with_logprobs = logprobs
        self._logprobs_of: dict[int, CompletionLogprobs] = {}

    def choice(self, choice: ChoiceText) -> dict[str, Any]:
        """A choice with its text."""
        return self._piece(
            choice.index, choice.text, choice.tokens, reason=finish_reason(choice.end)
        )

    def opening(self, index: int) -> dict[str, Any] | None:  # noqa: ARG002 - it needs none
        """Nothing."""
        return None

    def delta(self, index: int, delta: router_pb2.Delta) -> dict[str, Any]:
        """More of the text."""
        return self._piece(index, delta.text, delta.tokens)

    def closing(self, index: int, finished: router_pb2.Finished) -> dict[str, Any]:
        """No more text, and the reason."""
        return self._piece(index, "", (), reason=finish_reason(finished))

    def _piece(
        self,
        index: int,
        text: str,
        tokens: Sequence[types_pb2.Token],
        reason: str | None = None,
    ) -> dict[str, Any]:
        logprobs = self._logprobs(index, tokens)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, tokens: Sequence[types_pb2.Token]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        if index not in self._logprobs_of:
            self._logprobs_of[index] = CompletionLogprobs(self._tokenizer)
        return self._logprobs_of[index].of(tokens)


def _chunk(
    index: int,
    delta: dict[str, Any],
    logprobs: dict[str, Any] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
