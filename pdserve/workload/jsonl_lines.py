"""Parses the lines of a trace in JSON Lines."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from pdserve.workload.columns import (
    Columns,
    MalformedLine,
    checked_arrivals,
    checked_tokens,
    real_numbers,
    whole_numbers,
)
from pdserve.workload.formats import TraceFormat
from pdserve.workload.workload import Ints

BLOCK_TOKENS = "block_tokens"


class JsonlLines:
    """Parses lines, each one a JSON object; raises `MalformedLine`.

    `block_tokens` is the size of a prefix block: the format's, or that of the first line which has
    one; 0 before.
    """

    def __init__(self, trace_format: TraceFormat) -> None:
        self._format = trace_format
        self.block_tokens = trace_format.block_tokens

    def parse(self, lines: Sequence[str]) -> Columns:
        """The columns of `lines`, none of which is blank."""
        form = self._format
        records = _records(lines)
        least = 0 if form.marks_failures else 1
        prompts, outputs = (
            checked_tokens(whole_numbers(_values(records, key), key), key, least)
            for key in (form.prompt, form.output)
        )
        counts, ids = self._blocks(records, prompts)
        return Columns(
            arrival=checked_arrivals(
                real_numbers(_values(records, form.arrival), form.arrival), form.arrival
            ),
            prompt=prompts,
            output=outputs,
            block_counts=counts,
            ids=ids,
            conversation=self._conversations(records),
        )

    def _blocks(self, records: Sequence[dict[str, Any]], prompts: Ints) -> tuple[Ints, Ints]:
        key = self._format.prefix_ids
        lists = [record.get(key, ()) for record in records]
        if not set(map(type, lists)) <= {list, tuple}:
            raise MalformedLine(f"{key} must be a list")
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        flat = list(chain.from_iterable(lists))
        if not flat:
            return counts, np.zeros(0, dtype=np.int64)
        if not self._format.block_tokens:
            self._check_block_tokens([each for each in records if each.get(key)])
        room = -(-prompts // self.block_tokens)
        if np.any(counts > room):
            raise MalformedLine(
                f"{key} has {counts[0]} blocks of {self.block_tokens} tokens; "
                f"a prompt of {prompts[0]} tokens has at most {room[0]}"
            )
        return counts, whole_numbers(flat, f"one of {key}")

    def _conversations(self, records: Sequence[dict[str, Any]]) -> Ints:
        key = self._format.conversation
        numbers = whole_numbers([record.get(key, -1) for record in records], key)
        if numbers.min() < -1:
            raise MalformedLine(f"{key} is {numbers[0]}; it must be at least 0")
        return numbers

    def _check_block_tokens(self, records: Sequence[dict[str, Any]]) -> None:
        sizes = whole_numbers(_values(records, BLOCK_TOKENS), BLOCK_TOKENS)
        checked_tokens(sizes, BLOCK_TOKENS, 1)
        self.block_tokens = self.block_tokens or int(sizes[0])
        if np.any(sizes != self.block_tokens):
            raise MalformedLine(
                f"{BLOCK_TOKENS} is {sizes[0]}; an earlier line has {self.block_tokens}"
            )


def _records(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The objects in the lines, parsed as one array: that takes half the time."""
    try:
        records = json.loads(f"[{','.join(lines)}]")
    except json.JSONDecodeError as error:
        raise MalformedLine(f"not valid JSON: {error.msg}") from error
    except RecursionError as error:
        raise MalformedLine("the JSON is nested too deeply") from error
    except ValueError as error:  # a number with thousands of digits
        raise MalformedLine(f"not valid JSON: {error}") from error
    if len(records) != len(lines) or set(map(type, records)) != {dict}:
        raise MalformedLine("it must be one JSON object")
    return list(records)


def _values(records: Sequence[dict[str, Any]], key: str) -> list[Any]:
    try:
        return [record[key] for record in records]
    except KeyError as error:
        raise MalformedLine(f"it has no {key!r}") from error
