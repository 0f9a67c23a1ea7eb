"""What is under load: a server that answers prompts, whatever it speaks."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pdserve.bench.timeline import Timeline

# "rejected" is a server that says no, at once and rightly; "failed" is one that breaks.
Refusal = Literal["rejected", "timeout", "failed"]
Send = Callable[[Timeline], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class IdPrompt:
    """A prompt of exactly these tokens."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A prompt of texts by user and assistant in turn; the user has the first and the last."""

    turns: tuple[str, ...]


Prompt = IdPrompt | TextPrompt


@dataclass(frozen=True, slots=True)
class TokenRange:
    """Ids from `low` to below `high`, which are ordinary tokens of the model."""

    low: int
    high: int


# Inside the vocabularies of today's models, and away from their ends, where special tokens are.
ORDINARY_TOKENS = TokenRange(1_000, 30_000)


@dataclass(frozen=True, slots=True)
class TextScale:
    """How many tokens a prompt of words has: `frame`, and `per_word` for each.

    Every further question of a conversation adds `turn`, besides what was answered.
    """

    frame: float = 0.0
    per_word: float = 1.0
    turn: float = 0.0

    def words(self, tokens: float) -> int:
        """How many words make about so many tokens, without frames; at least 1."""
        return max(1, round(tokens / self.per_word))


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out of a target. `prompts` is what it takes; `notes` are for people."""

    model: str
    prompts: TokenRange | TextScale
    notes: tuple[str, ...] = ()


class RequestError(Exception):
    """A request that got no complete answer: how it went, and in a few words why.

    `status` is that of HTTP, 0 where there was none.
    """

    def __init__(self, refusal: Refusal, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.refusal: Refusal = refusal
        self.reason = reason
        self.status = status


class Target(Protocol):
    """A server under load."""

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    async def prepare(self) -> Facts:
        """Finds out what is served and how it wants to be asked.

        Raises `PdserveError` where there is nothing to put under load.
        """
        ...

    def request(self, prompt: Prompt, output_tokens: int) -> Send:
        """A request that is encoded and waits to be sent.

        What is returned sends it, notes the answer on a timeline and returns when it is complete;
        it raises `RequestError`. It is given up on by cancelling it.
        """
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...
