"""All that was found as JSON Lines, which are a trace as well.

The first line says what was asked, a line each the points and comparisons, and then a line each the
requests in the order in which they were due. These have the keys of a trace in JSON Lines, so that
`pdserve.workload` reads the file as what was sent.
"""

import dataclasses
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from pdserve import __version__
from pdserve.bench.record import Record
from pdserve.bench.results import Point, Results
from pdserve.bench.session import Slice
from pdserve.errors import ConfigError
from pdserve.workload.formats import BENCH
from pdserve.workload.jsonl_lines import BLOCK_TOKENS

Document = dict[str, Any]


def write_json_lines(results: Results, asked: Mapping[str, Any], path: Path) -> None:
    """Writes the file, gzip'd where it ends in `.gz`; `asked` is what the flags said.

    Raises `ConfigError` where it cannot be written.
    """
    try:
        with path.open("wb") as raw:
            target = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
            with TextIOWrapper(target, encoding="utf-8", newline="\n") as file:
                file.writelines(f"{json.dumps(finite(line))}\n" for line in _lines(results, asked))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", field="json") from error


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for, and microseconds as the least digit."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(each) for each in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _lines(results: Results, asked: Mapping[str, Any]) -> Iterator[Document]:
    yield {
        "record": "bench",
        "pdserve": __version__,
        "asked": dict(asked),
        "slo": {
            "ttft_ms": results.slo.ttft_s * 1e3,
            "tpot_ms": results.slo.tpot_s * 1e3,
            "attainment": results.slo.attainment,
        },
        "targets": [
            {
                "name": each.target.name,
                "model": each.facts.model,
                "prompts": dataclasses.asdict(each.facts.prompts),
                "notes": each.facts.notes,
            }
            for each in results.targets
        ],
        "knee": results.knee,
    }
    for point in results.points:
        yield {"record": "point", **_summary(point)}
    for comparison in results.comparisons:
        for each in comparison.measures:
            measured = dataclasses.asdict(each) | {"measure": each.measure.name}
            yield {"record": "comparison", "rate": comparison.rate, **measured}
    yield from _requests(results)


def _summary(point: Point) -> Document:
    summary = point.summary
    document = dataclasses.asdict(summary)
    for name in ("attainment", "admitted", "ttft_attainment", "tpot_attainment"):
        document[name]["value"] = getattr(summary, name).value
    document["warnings"] = summary.generator.warnings
    return document


def _requests(results: Results) -> Iterator[Document]:
    """Requests of runs that began one after the other; none shares a prefix with another's."""
    slices = sorted(
        (each for point in results.points for each in point.slices), key=lambda each: each.run.began
    )
    blocks = conversations = 0
    for each in slices:
        workload = each.run.workload
        begin = each.run.began - slices[0].run.began
        for record in each.run.records:
            line = _request(each, record, begin)
            if (prefix := workload.prefix) is not None:
                part = slice(prefix.offsets[record.index], prefix.offsets[record.index + 1])
                line[BENCH.prefix_ids] = (prefix.ids[part] + blocks).tolist()
                line[BLOCK_TOKENS] = prefix.block_tokens
            if workload.conversation is not None and workload.conversation[record.index] >= 0:
                number = int(workload.conversation[record.index])
                line[BENCH.conversation] = conversations + number
            yield line
        blocks += 0 if workload.prefix is None else workload.prefix.count
        if workload.conversation is not None:
            conversations += int(workload.conversation.max()) + 1


def _request(of: Slice, record: Record, begin: float) -> Document:
    answered = record.outcome == "ok" and record.output_tokens > 0
    return {
        "record": "request",
        BENCH.arrival: begin + record.due_s,
        BENCH.prompt: record.prompt_tokens,
        # What was asked for where less came because something went wrong.
        BENCH.output: record.output_tokens if answered else record.asked_tokens,
        "target": of.run.target,
        "rate": of.rate,
        "round": of.number,
        "outcome": record.outcome,
        "reason": record.reason,
        "lag_s": record.lag_s,
        "ttft_s": record.ttft_s,
        "tpot_s": record.tpot_s,
        "e2e_s": record.e2e_s,
        "gaps_s": record.gaps_s,
        "received_tokens": record.output_tokens,
        "counted_prompt_tokens": record.counted_tokens,
        "cached_tokens": record.cached_tokens,
        "answer_missed": record.answer_missed,
    }
