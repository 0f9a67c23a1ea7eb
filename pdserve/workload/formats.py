"""The trace formats: what their columns or keys are called, and what these hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from pdserve.errors import ConfigError

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """One format. `arrival`, `prompt`, `output` and `prefix_ids` are names of columns or keys.

    Arrivals are counted in units of `1 / ticks_per_s` seconds or, in a `calendar`, are dates in
    UTC. `marks_failures`: requests without a response are recorded with 0 tokens. `prefix_ids` is
    empty where the format has no prefixes; `block_tokens` is the size of a block, 0 where each line
    gives it itself. `conversation` is the key that tells conversations apart, if there is one. With
    a `marker` only lines that contain it are requests.
    """

    name: str
    container: Literal["csv", "jsonl"]
    arrival: str
    prompt: str
    output: str
    ticks_per_s: float = 1.0
    calendar: bool = False
    marks_failures: bool = False
    prefix_ids: str = ""
    block_tokens: int = 0
    conversation: str = ""
    marker: str = ""

    @property
    def required(self) -> tuple[str, str, str]:
        """The columns or keys that every trace of this format has."""
        return (self.arrival, self.prompt, self.output)


CSV = TraceFormat("csv", "csv", "arrival_s", "prompt_tokens", "output_tokens")
JSONL = TraceFormat(
    "jsonl",
    "jsonl",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    prefix_ids="prefix_ids",
    conversation="conversation",
)
AZURE = TraceFormat(
    "azure",
    "csv",
    "TIMESTAMP",
    "ContextTokens",
    "GeneratedTokens",
    ticks_per_s=1e9,
    calendar=True,
    marks_failures=True,
)
MOONCAKE = TraceFormat(
    "mooncake",
    "jsonl",
    "timestamp",
    "input_length",
    "output_length",
    ticks_per_s=1e3,
    marks_failures=True,
    prefix_ids="hash_ids",
    block_tokens=512,
)
BURSTGPT = TraceFormat(
    "burstgpt", "csv", "Timestamp", "Request tokens", "Response tokens", marks_failures=True
)

# The router's log: one line a finished request, among others.
ROUTER = TraceFormat(
    "router",
    "jsonl",
    "arrived_at",
    "prompt_tokens",
    "output_tokens",
    marks_failures=True,
    marker='"event": "request finished"',
)

# What `pdserve bench --json` writes: one line a request, among others.
BENCH = replace(JSONL, name="bench", marker='"record": "request"')

FORMATS: Mapping[str, TraceFormat] = MappingProxyType(
    {each.name: each for each in (CSV, JSONL, AZURE, MOONCAKE, BURSTGPT, ROUTER, BENCH)}
)


def format_named(name: str) -> TraceFormat:
    """The format called `name`; `ConfigError` names those that there are."""
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConfigError(
            f"trace format is {name!r}; it must be one of {known}",
            field="trace_format",
            limit=known,
        )
    return FORMATS[name]
