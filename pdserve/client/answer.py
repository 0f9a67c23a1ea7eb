"""What comes back of a request: pieces on the way, an answer at the end."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pdserve.client.placement import Attempt, Ledger
from pdserve.rpc.v1 import types_pb2


class FinishReason(StrEnum):
    """Why an output ended: an end token or stop string, or no more room."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the most likely tokens at a place."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the output; `index` counts from 0. `logprob` is None unless asked for."""

    id: int
    index: int
    logprob: float | None
    top_logprobs: tuple[TopLogprob, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """More of the output. `text` is whole characters; it may be empty while one is incomplete."""

    text: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request; `cached_tokens` are those of the prompt that a prefix cache had."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `stop` is the stop string that ended it, empty where none did.

    `ttft_s` and `total_s` are what this client saw, from sending the request on; `ledger` is the
    router's own account. They differ by what the network and the two programs' gRPC took.
    """

    request_id: str
    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    stop: str
    usage: Usage
    ledger: Ledger
    attempts: tuple[Attempt, ...]
    ttft_s: float
    total_s: float

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The output, end token included."""
        return tuple(token.id for token in self.tokens)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """That of each token; empty unless they were asked for."""
        return tuple(token.logprob for token in self.tokens if token.logprob is not None)


def tokens_of(messages: Iterable[types_pb2.Token]) -> tuple[Token, ...]:
    """The tokens in messages."""
    return tuple(
        Token(
            each.id,
            each.index,
            each.logprob if each.HasField("logprob") else None,
            tuple(TopLogprob(top.token_id, top.logprob) for top in each.top_logprobs),
        )
        for each in messages
    )


def finish_reason_of(reason: types_pb2.FinishReason.ValueType) -> FinishReason:
    """The reason that a number stands for."""
    return FinishReason(types_pb2.FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower())
