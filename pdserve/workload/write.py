"""Writes traces in the formats that `read.py` reads."""

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pdserve.errors import ConfigError
from pdserve.workload.formats import AUTO, AZURE, BURSTGPT, CSV, JSONL, TraceFormat, format_named
from pdserve.workload.jsonl_lines import BLOCK_TOKENS
from pdserve.workload.workload import PrefixBlocks, Workload

_BURSTGPT_COLUMNS = (
    BURSTGPT.arrival,
    "Model",
    BURSTGPT.prompt,
    BURSTGPT.output,
    "Total tokens",
    "Log Type",
)
# Arrivals have no date; Azure's have one.
_FIRST_DAY = np.datetime64("1970-01-01", "us")


def write_trace(workload: Workload, path: str | Path, format: str = AUTO) -> None:  # noqa: A002 - as on the command line
    """Writes `workload` to the file `path`, gzip'd where that ends in `.gz`.

    `format` is a name in `FORMATS`, or "auto": the suffix tells `.csv` from `.jsonl`. Arrivals are
    kept to the microsecond, but in Mooncake's format to the millisecond. Raises `ConfigError` where
    the file cannot be written, or where the format cannot hold the workload's prefixes.
    """
    path = Path(path)
    trace_format = _by_suffix(path) if format == AUTO else format_named(format)
    if trace_format.marker:
        raise ConfigError(f"{trace_format.name} can be read only", field="trace_format")
    _check_prefix(workload, trace_format)
    compress = path.suffix == ".gz"
    try:
        with path.open("wb") as raw:
            # Without the time of writing, so that equal workloads are equal files.
            target = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compress else raw
            with TextIOWrapper(target, encoding="utf-8", newline="\n") as file:
                _write(workload, trace_format, file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", field="output") from error


def _by_suffix(path: Path) -> TraceFormat:
    suffix = Path(path.name.removesuffix(".gz")).suffix
    for each in (CSV, JSONL):
        if suffix == f".{each.name}":
            return each
    text = f"{path}: the suffix tells no format: it must be .csv or .jsonl, with or without .gz; "
    raise ConfigError(text + "or name a format", field="trace_format", limit=".csv|.jsonl")


def _check_prefix(workload: Workload, trace_format: TraceFormat) -> None:
    if workload.prefix is None:
        return
    if not trace_format.prefix_ids:
        raise ConfigError(
            f"{workload.name} has shared prefixes, which the format {trace_format.name} cannot "
            "hold; jsonl can, and they can be dropped",
            field="trace_format",
        )
    size, fixed = workload.prefix.block_tokens, trace_format.block_tokens
    if fixed and size != fixed:
        raise ConfigError(
            f"{workload.name} has prefix blocks of {size} tokens; in the format "
            f"{trace_format.name} they have {fixed}; jsonl takes any",
            field="trace_format",
            limit=str(fixed),
        )


def _write(workload: Workload, trace_format: TraceFormat, file: TextIO) -> None:
    if trace_format.container == "jsonl":
        file.writelines(f"{json.dumps(each)}\n" for each in _objects(workload, trace_format))
        return
    rows = csv.writer(file, lineterminator="\n")
    prompts, outputs = workload.prompt_tokens.tolist(), workload.output_tokens.tolist()
    if trace_format is BURSTGPT:
        rows.writerow(_BURSTGPT_COLUMNS)
        rows.writerows(
            (arrival, workload.name, prompt, output, prompt + output, "API log")
            for arrival, prompt, output in zip(_seconds(workload), prompts, outputs, strict=True)
        )
        return
    arrivals = _dates(workload) if trace_format is AZURE else _seconds(workload)
    rows.writerow(trace_format.required)
    rows.writerows(zip(arrivals, prompts, outputs, strict=True))


def _objects(workload: Workload, trace_format: TraceFormat) -> Iterator[dict[str, Any]]:
    in_ms = trace_format.ticks_per_s == 1e3
    micros = np.round(workload.arrival_s * 1e6)
    arrivals = np.rint(micros / 1e3).astype(np.int64) if in_ms else micros / 1e6
    columns = (arrivals, workload.prompt_tokens, workload.output_tokens)
    lines = zip(*(column.tolist() for column in columns), strict=True)
    prefix = workload.prefix
    none = [-1] * len(workload)
    conversation = none if workload.conversation is None else workload.conversation.tolist()
    for index, line in enumerate(lines):
        entry: dict[str, Any] = dict(zip(trace_format.required, line, strict=True))
        if prefix is not None:
            entry[trace_format.prefix_ids] = _ids(prefix, index)
            if not trace_format.block_tokens:
                entry[BLOCK_TOKENS] = prefix.block_tokens
        if trace_format.conversation and conversation[index] >= 0:
            entry[trace_format.conversation] = conversation[index]
        yield entry


def _ids(prefix: PrefixBlocks, index: int) -> list[int]:
    ids: list[int] = prefix.ids[prefix.offsets[index] : prefix.offsets[index + 1]].tolist()
    return ids


def _seconds(workload: Workload) -> Sequence[str]:
    return [f"{second:.6f}" for second in workload.arrival_s.tolist()]


def _dates(workload: Workload) -> Sequence[str]:
    """Dates with seven digits of the second, as in Azure's traces."""
    micros = np.rint(workload.arrival_s * 1e6).astype("timedelta64[us]")
    texts = np.datetime_as_string(_FIRST_DAY + micros, unit="us")
    return [f"{text.replace('T', ' ')}0" for text in texts.tolist()]
