"""What one step of an engine is made of."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is in a step: prompts, sequences that decode, or both."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Prompt:
    """`new` tokens, at least 2, that are computed after `past` ones whose KV is there.

    `past` fills whole KV blocks: it is what the prefix cache holds of the prompt.
    """

    new: int
    past: int = 0


@dataclass(frozen=True, slots=True)
class StepShape:
    """Prompts that are computed to their end, and the contexts of the sequences that decode.

    A context counts the tokens whose KV a sequence has before the step.
    """

    prompts: tuple[Prompt, ...] = ()
    contexts: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        """What the step has in it."""
        if not self.contexts:
            return Kind.PREFILL
        return Kind.MIXED if self.prompts else Kind.DECODE

    @property
    def tokens(self) -> int:
        """Tokens of prompts that are computed, as `PrefillCost` counts them."""
        return sum(prompt.new for prompt in self.prompts)

    @property
    def squares(self) -> int:
        """Σ ((past + new)² − past²), as `PrefillCost` counts them."""
        return sum((each.past + each.new) ** 2 - each.past**2 for each in self.prompts)

    @property
    def batch(self) -> int:
        """Sequences that decode."""
        return len(self.contexts)

    @property
    def context(self) -> int:
        """Tokens of context of all sequences that decode."""
        return sum(self.contexts)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence whose KV is there after the step."""
        prompts = (prompt.past + prompt.new for prompt in self.prompts)
        return (*prompts, *(context + 1 for context in self.contexts))
