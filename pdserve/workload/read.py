"""Reads traces: CSV and JSON Lines in the formats of `formats.py`, gzip'd or not."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader, TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TextIO, cast

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.columns import Columns, MalformedLine
from pdserve.workload.csv_lines import CsvLines, header_columns
from pdserve.workload.formats import AUTO, BENCH, FORMATS, ROUTER, TraceFormat, format_named
from pdserve.workload.jsonl_lines import JsonlLines
from pdserve.workload.workload import Ints, PrefixBlocks, Workload

# Large enough for numpy to pay, small beside the columns of a long trace.
_CHUNK_LINES = 8192
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace as it was read. `failed`: how many requests without a response were left out."""

    workload: Workload
    format: TraceFormat
    failed: int


class _LineParser(Protocol):
    """Parses lines of one container; `block_tokens` is 0 where no line has prefix blocks."""

    block_tokens: int

    def parse(self, lines: Sequence[str]) -> Columns: ...


def read_trace(path: str | Path, format: str = AUTO) -> Workload:  # noqa: A002 - as on the command line
    """The requests in the file `path`, sorted by arrival, which is counted from the first one.

    See `read_trace_file`.
    """
    return read_trace_file(path, format).workload


def read_trace_file(path: str | Path, format: str = AUTO) -> TraceFile:  # noqa: A002
    """The requests in the file `path` and what was found out about it.

    `format` is a name in `FORMATS`, or "auto": the first line tells. The file is read in chunks, of
    which only the columns are kept: 24 bytes a request and 8 bytes a prefix block. Raises
    `ConfigError` with the file, the line and what is wrong with it.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            return _read(path, file, format)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file: {error}", field="trace") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ConfigError(f"{path}: not a whole gzip file: {error}", field="trace") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", field="trace") from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    with path.open("rb") as raw:
        compressed = raw.peek(2).startswith(_GZIP_MAGIC)
        source = cast("BufferedReader", gzip.GzipFile(fileobj=raw)) if compressed else raw
        # A spreadsheet's byte order mark would become part of the first column's name.
        with TextIOWrapper(source, encoding="utf-8-sig") as text:
            yield text


def _read(path: Path, file: TextIO, name: str) -> TraceFile:
    number, first = next(
        ((number, line) for number, line in enumerate(file, 1) if not line.isspace()), (0, "")
    )
    if not first:
        raise ConfigError(f"{path}: no requests: the file is empty", field="trace")
    trace_format = _detect(path, first) if name == AUTO else format_named(name)
    parser: _LineParser
    if trace_format.container == "csv":
        try:
            parser = CsvLines(trace_format, header_columns(first))
        except MalformedLine as error:
            raise _at_line(path, number, error) from error
        chunks = list(_parsed(path, file, number + 1, parser, trace_format.marker))
    else:
        parser = JsonlLines(trace_format)
        lines = chain([first], file)
        chunks = list(_parsed(path, lines, number, parser, trace_format.marker))
    if not chunks:
        raise ConfigError(f"{path}: it has no requests", field="trace")
    return _assembled(path, trace_format, chunks, parser.block_tokens)


def _detect(path: Path, first: str) -> TraceFormat:
    """The format whose names stand in the first line."""
    is_json = first.lstrip().startswith("{")
    if is_json and '"event"' in first and '"logger"' in first:
        return ROUTER
    if is_json and '"record"' in first:
        return BENCH
    columns = {name.lower() for name in header_columns(first)}
    for each in FORMATS.values():
        if is_json and each.container == "jsonl" and f'"{each.prompt}"' in first:
            return each
        if each.container == "csv" and {name.lower() for name in each.required} <= columns:
            return each
    known = "; ".join(f"{each.name}: {','.join(each.required)}" for each in FORMATS.values())
    shown = first.strip()[:120]
    raise ConfigError(
        f"{path}: the first line is of no known trace format: {shown!r}; known are {known}",
        field="trace",
        limit=known,
    )


def _parsed(
    path: Path, lines: Iterator[str], number: int, parser: _LineParser, marker: str
) -> Iterator[Columns]:
    """The columns of each chunk of `lines`, whose first has this `number` in the file."""
    while chunk := list(islice(lines, _CHUNK_LINES)):
        filled = [line for line in chunk if not line.isspace() and marker in line]
        try:
            if filled:
                yield parser.parse(filled)
        except MalformedLine as error:
            raise _first_error(path, chunk, number, parser, marker) or _at_line(
                path, number, error
            ) from error
        number += len(chunk)


def _first_error(
    path: Path, chunk: Sequence[str], number: int, parser: _LineParser, marker: str
) -> ConfigError | None:
    """The error of the first line that is malformed by itself."""
    for offset, line in enumerate(chunk):
        try:
            if not line.isspace() and marker in line:
                parser.parse([line])
        except MalformedLine as error:
            return _at_line(path, number + offset, error)
    return None


def _at_line(path: Path, number: int, error: MalformedLine) -> ConfigError:
    return ConfigError(f"{path}, line {number}: {error}", field="trace")


def _assembled(
    path: Path, trace_format: TraceFormat, chunks: Sequence[Columns], block_tokens: int
) -> TraceFile:
    arrival, prompt, output, counts, ids, conversation = (
        np.concatenate([getattr(chunk, name) for chunk in chunks])
        for name in ("arrival", "prompt", "output", "block_counts", "ids", "conversation")
    )
    answered = np.flatnonzero((prompt > 0) & (output > 0))
    failed = len(arrival) - len(answered)
    if not len(answered):
        raise ConfigError(f"{path}: all {failed} requests failed: 0 tokens", field="trace")
    # Stable, so that requests which arrive together keep the order of the file.
    order = answered[np.argsort(arrival[answered], kind="stable")]
    prefix = None
    if len(ids):
        offsets = np.concatenate(([0], np.cumsum(counts)))
        prefix = PrefixBlocks(offsets, ids, block_tokens)
        if failed or np.any(np.diff(order) < 0):
            prefix = prefix.take(order)
        prefix = replace(prefix, ids=_dense(prefix.ids))
    workload = Workload(
        name=_name(path),
        arrival_s=(arrival[order] - arrival[order[0]]) / trace_format.ticks_per_s,
        prompt_tokens=prompt[order],
        output_tokens=output[order],
        prefix=prefix,
        conversation=conversation[order] if conversation.max() >= 0 else None,
    )
    return TraceFile(workload, trace_format, failed)


def _dense(ids: Ints) -> Ints:
    """The ids renumbered from 0 in ascending order."""
    if not len(ids):
        return ids
    if ids.min() < 0 or ids.max() >= 4 * len(ids):
        return np.unique(ids, return_inverse=True)[1].astype(np.int64, copy=False)
    # Nearly dense already, as in Mooncake's traces: a table is faster than sorting.
    seen = np.zeros(ids.max() + 1, dtype=np.int64)
    seen[ids] = 1
    rank: Ints = np.cumsum(seen) - 1
    return rank[ids]


def _name(path: Path) -> str:
    """The file's name without what tells its format."""
    return path.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".jsonl") or path.name
