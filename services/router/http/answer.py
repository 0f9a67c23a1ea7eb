"""What has been generated for one HTTP request, as bodies and chunks have it in common."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pdserve.client.placement import attempt_of, ledger_of
from pdserve.rpc.v1 import router_pb2, types_pb2

_REASONS = {types_pb2.FINISH_REASON_STOP: "stop", types_pb2.FINISH_REASON_LENGTH: "length"}


class ChoiceText:
    """The text of one choice, its tokens where their logprobs are wanted, and how it ended."""

    def __init__(self, index: int, *, keep_tokens: bool) -> None:
        self.index = index
        self.tokens: list[types_pb2.Token] = []
        self.finished: router_pb2.Finished | None = None
        self._keep_tokens = keep_tokens
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    async def take(self, event: router_pb2.GenerateEvent) -> None:
        """Notes an event of the choice's run."""
        if event.HasField("finished"):
            self.finished = event.finished
            return
        self._pieces.append(event.delta.text)
        if self._keep_tokens:
            self.tokens += event.delta.tokens

    @property
    def end(self) -> router_pb2.Finished:
        """How it ended; only once its run has."""
        assert self.finished is not None, "a run ends with an event that says so, or raises"
        return self.finished


def finish_reason(finished: router_pb2.Finished) -> str:
    """OpenAI's word for why a choice ended."""
    return _REASONS[finished.reason]


def usage_of(ends: Sequence[router_pb2.Finished], choices_a_prompt: int) -> dict[str, Any]:
    """The tokens of a request; each prompt counts once, however many choices it has."""
    prompts = ends[::choices_a_prompt]
    prompt_tokens = sum(each.prompt_tokens for each in prompts)
    output_tokens = sum(each.output_tokens for each in ends)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in prompts)},
    }


def explanation_of(ends: Sequence[router_pb2.Finished]) -> dict[str, Any]:
    """Where the time of each choice went, and which placements were tried for it."""
    return {"choices": [_explained(index, end) for index, end in enumerate(ends)]}


def _explained(index: int, end: router_pb2.Finished) -> dict[str, Any]:
    return {
        "index": index,
        "stop": end.stop,
        "ledger": asdict(ledger_of(end.ledger)),
        "attempts": [asdict(attempt_of(each)) for each in end.attempts],
    }
