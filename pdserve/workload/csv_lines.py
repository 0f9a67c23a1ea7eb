"""Parses the lines of a trace in CSV."""

import csv
import re
from collections.abc import Callable, Sequence
from operator import itemgetter

import numpy as np

from pdserve.workload.columns import (
    Columns,
    MalformedLine,
    checked_arrivals,
    checked_tokens,
)
from pdserve.workload.formats import TraceFormat
from pdserve.workload.workload import Floats, Ints

# numpy would also take "now", years alone and, with a warning, time zones.
_DATE = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?")


def header_columns(line: str) -> list[str]:
    """The names in the first line."""
    return [name.strip().strip('"') for name in line.split(",")]


class CsvLines:
    """Parses lines under the header `columns`; raises `MalformedLine`.

    Columns are found by name, in any order and case; those that the format does not need are not
    looked at. CSV has no prefix blocks, so `block_tokens` is 0.
    """

    def __init__(self, trace_format: TraceFormat, columns: Sequence[str]) -> None:
        places = {name.lower(): place for place, name in enumerate(columns)}
        missing = [name for name in trace_format.required if name.lower() not in places]
        if missing:
            raise MalformedLine(f"the header has no column {missing[0]!r}: {','.join(columns)}")
        self.block_tokens = 0
        self._format = trace_format
        self._width = len(columns)
        self._pick: Callable[[Sequence[str]], tuple[str, ...]] = itemgetter(
            *(places[name.lower()] for name in trace_format.required)
        )

    def parse(self, lines: Sequence[str]) -> Columns:
        """The columns of `lines`, none of which is blank."""
        arrivals, prompts, outputs = zip(*map(self._pick, self._rows(lines)), strict=True)
        form = self._format
        least = 0 if form.marks_failures else 1
        none = np.zeros(len(lines), dtype=np.int64)
        return Columns(
            arrival=(_nanoseconds if form.calendar else _reals)(arrivals, form.arrival),
            prompt=checked_tokens(_wholes(prompts, form.prompt), form.prompt, least),
            output=checked_tokens(_wholes(outputs, form.output), form.output, least),
            block_counts=none,
            ids=none[:0],
            conversation=none - 1,
        )

    def _rows(self, lines: Sequence[str]) -> list[list[str]]:
        try:
            rows = list(csv.reader(lines, strict=True))
        except csv.Error as error:
            raise MalformedLine(f"not valid CSV: {error}") from error
        if len(rows) != len(lines):
            raise MalformedLine("a quoted value goes on in the next line")
        if set(map(len, rows)) != {self._width}:
            raise MalformedLine(f"it has {len(rows[0])} values; the header has {self._width}")
        return rows


def _wholes(texts: Sequence[str], name: str) -> Ints:
    try:
        return np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError) as error:
        text = f"{name} is {texts[0]!r}; it must be a whole number below 2^63"
        raise MalformedLine(text) from error


def _reals(texts: Sequence[str], name: str) -> Floats:
    try:
        numbers = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError as error:
        raise MalformedLine(f"{name} is {texts[0]!r}; it must be a number") from error
    return checked_arrivals(numbers, name)


def _nanoseconds(texts: Sequence[str], name: str) -> Ints:
    """Since 1970, as integers: a float of that size is too coarse for fractions of 100 ns."""
    plain = [text.strip().removesuffix("Z").removesuffix("+00:00") for text in texts]
    try:
        if not all(map(_DATE.fullmatch, plain)):
            raise ValueError
        return np.array(plain, dtype="datetime64[ns]").astype(np.int64)
    except ValueError as error:
        wanted = "a date and time in UTC, as in 2023-11-16 18:15:46.6805900"
        raise MalformedLine(f"{name} is {texts[0]!r}; it must be {wanted}") from error
