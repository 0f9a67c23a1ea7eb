"""Conversations of several turns: each prompt is the conversation so far and a new question."""

from dataclasses import dataclass
from itertools import count

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.columns import MAX_TOKENS
from pdserve.workload.workload import Ints, PrefixBlocks


@dataclass(frozen=True, slots=True)
class Conversations:
    """Users who talk in conversations of `turns` requests on average.

    A conversation begins with `system_tokens` that all have in common. The next turn's prompt is
    the last one's prompt and output and a new question; it comes `think_s` seconds after the last
    one on average. A turn that would take the context beyond `max_tokens` begins a conversation
    instead. Prefix blocks have `block_tokens` tokens. Raises `ConfigError` for values out of range.
    """

    turns: float = 4.0
    think_s: float = 30.0
    system_tokens: int = 0
    max_tokens: int = 32_768
    block_tokens: int = 512

    def __post_init__(self) -> None:
        _check("turns", self.turns, 1, 1_000_000)
        _check("think_s", self.think_s, 0, 1e9)
        _check("system", self.system_tokens, 0, MAX_TOKENS)
        _check("max", self.max_tokens, 1, MAX_TOKENS)
        _check("block", self.block_tokens, 1, MAX_TOKENS)

    def converse(
        self, rng: np.random.Generator, rate: float, questions: Ints, outputs: Ints
    ) -> tuple[Ints, PrefixBlocks, Ints]:
        """The prompts, their blocks and their conversations, where questions and outputs are these.

        Each request belongs to one of `rate · think_s` users, drawn at random, so that arrivals
        keep the process by which they were drawn, and a user's requests come `think_s` seconds
        apart on average (Little's law). The user begins a new conversation with a probability of
        `1 / turns`. As in Mooncake's traces every block has an id, the last one of a prompt too
        though it is not full; requests share those that were full.
        """
        users = max(1, round(rate * self.think_s))
        user_of = rng.integers(0, users, len(questions)).tolist()
        begins = (rng.random(len(questions)) < 1 / self.turns).tolist()
        system_blocks = self.system_tokens // self.block_tokens
        system = np.arange(system_blocks)
        conversations: dict[int, _Conversation] = {}
        next_id = system_blocks
        prompts, blocks, numbers = [], [], []
        begun = count()
        for user, begin, question, output in zip(
            user_of, begins, questions.tolist(), outputs.tolist(), strict=True
        ):
            past = None if begin else conversations.get(user)
            if past is None or past.context_tokens + question + output > self.max_tokens:
                past = _Conversation(next(begun), self.system_tokens, system)
            prompt = past.context_tokens + question
            new = -(-prompt // self.block_tokens) - len(past.full_blocks)
            ids = np.concatenate((past.full_blocks, np.arange(next_id, next_id + new)))
            next_id += new
            full = prompt // self.block_tokens
            conversations[user] = _Conversation(past.number, prompt + output, ids[:full])
            prompts.append(prompt)
            blocks.append(ids)
            numbers.append(past.number)
        offsets = np.concatenate(([0], np.cumsum([len(ids) for ids in blocks])))
        prefix = PrefixBlocks(offsets, np.concatenate(blocks), self.block_tokens)
        return np.array(prompts, dtype=np.int64), prefix, np.array(numbers, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Conversation:
    """Where a conversation stands: its length, and the blocks that its last prompt filled."""

    number: int
    context_tokens: int
    full_blocks: Ints


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        limit = f"[{least}, {most:g}]"
        text = f"{name} is {value}; it must lie in {limit}"
        raise ConfigError(text, field="conversations", limit=limit)
