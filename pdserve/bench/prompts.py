"""Prompts of a workload, which really contain the conversation that they continue."""

from typing import Protocol

import numpy as np

from pdserve.bench.contents import Contents
from pdserve.bench.target import IdPrompt, Prompt, TextPrompt, TextScale, TokenRange
from pdserve.bench.timeline import Timeline
from pdserve.bench.words import WORDS
from pdserve.workload.workload import Workload


class Prompts(Protocol):
    """Makes the prompts of one run over a workload."""

    def build(self, index: int, history: "Turn | None") -> Prompt:
        """The prompt of a request, as long as the workload says, after the turn `history`."""
        ...


class Turn:
    """A turn of a conversation: what was asked and, once it is complete, the answer."""

    __slots__ = ("answer", "prompt", "prompt_tokens")

    def __init__(self, prompt: Prompt, prompt_tokens: int) -> None:
        self.prompt = prompt
        self.prompt_tokens = prompt_tokens
        self.answer: Timeline | None = None

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer, as the server counts them where it does."""
        if self.answer is None:
            return self.prompt_tokens
        return (self.answer.prompt_tokens or self.prompt_tokens) + self.answer.tokens


class Conversations:
    """The last turn of each conversation that is going on."""

    def __init__(self, workload: Workload) -> None:
        self._number = workload.conversation
        self._turns: dict[int, Turn] = {}

    def last(self, index: int) -> Turn | None:
        """The turn that a request continues, None where it begins something."""
        return self._turns.get(self._of(index))

    def begin(self, index: int, prompt: Prompt, prompt_tokens: int) -> Turn | None:
        """Notes that a request has been sent; None where it is a turn of no conversation."""
        number = self._of(index)
        if number < 0:
            return None
        turn = self._turns[number] = Turn(prompt, prompt_tokens)
        return turn

    def _of(self, index: int) -> int:
        return -1 if self._number is None else int(self._number[index])


class IdPrompts:
    """Prompts of token ids. What a server answers in text has no ids and is left out of them."""

    def __init__(self, workload: Workload, seed: int, tokens: TokenRange) -> None:
        self._workload = workload
        self._contents = Contents(workload, seed)
        self._range = tokens

    def build(self, index: int, history: Turn | None) -> IdPrompt:
        """See `Prompts.build`."""
        size = int(self._workload.prompt_tokens[index])
        ids = _ids(history)
        if len(ids) >= size:  # not what the workload says of a turn: it begins anew
            ids = []
        numbers = self._contents.numbers(index, np.arange(len(ids), size))
        span = np.uint64(self._range.high - self._range.low)
        return IdPrompt([*ids, *(numbers % span + np.uint64(self._range.low)).tolist()])


class TextPrompts:
    """Prompts of common English words, mostly one token each, so many that the length is right."""

    def __init__(self, workload: Workload, seed: int, scale: TextScale) -> None:
        self._workload = workload
        self._contents = Contents(workload, seed)
        self._scale = scale

    def build(self, index: int, history: Turn | None) -> TextPrompt:
        """See `Prompts.build`."""
        size = int(self._workload.prompt_tokens[index])
        turns = _texts(history)
        if history is None or not turns or history.tokens >= size:
            return TextPrompt((self._words(index, 0, size - self._scale.frame),))
        left = size - history.tokens
        if history.answer is None:  # the question goes on where the answer should have been
            words = self._words(index, history.tokens, left)
            return TextPrompt((*turns[:-1], f"{turns[-1]} {words}"))
        return TextPrompt((*turns, self._words(index, history.tokens, left - self._scale.turn)))

    def _words(self, index: int, begin: int, tokens: float) -> str:
        words = self._scale.words(tokens)
        places = begin + (np.arange(words) * self._scale.per_word).astype(np.int64)
        picked = self._contents.numbers(index, places) % np.uint64(len(WORDS))
        return " ".join(WORDS[each] for each in picked.tolist())


def _ids(history: Turn | None) -> list[int]:
    if history is None or not isinstance(history.prompt, IdPrompt):
        return []
    return [*history.prompt.ids, *(history.answer.ids if history.answer else ())]


def _texts(history: Turn | None) -> tuple[str, ...]:
    if history is None or not isinstance(history.prompt, TextPrompt):
        return ()
    if history.answer is None:
        return history.prompt.turns
    return (*history.prompt.turns, "".join(history.answer.texts))
