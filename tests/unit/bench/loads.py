"""Workloads and records to test with."""

import math
from collections.abc import Sequence

import numpy as np

from pdserve.bench.open_loop import Run
from pdserve.bench.record import Record
from pdserve.workload.workload import PrefixBlocks, Workload


def workload(
    arrivals: Sequence[float],
    prompts: Sequence[int] | int = 8,
    outputs: Sequence[int] | int = 4,
    blocks: Sequence[Sequence[int]] | None = None,
    block_tokens: int = 4,
    conversation: Sequence[int] | None = None,
) -> Workload:
    size = len(arrivals)
    prefix = None
    if blocks is not None:
        offsets = np.cumsum([0, *(len(ids) for ids in blocks)])
        flat = np.array([each for ids in blocks for each in ids], dtype=np.int64)
        prefix = PrefixBlocks(offsets, flat, block_tokens)
    return Workload(
        "made",
        np.array(arrivals, dtype=np.float64),
        np.broadcast_to(np.array(prompts, dtype=np.int64), size),
        np.broadcast_to(np.array(outputs, dtype=np.int64), size),
        prefix,
        None if conversation is None else np.array(conversation, dtype=np.int64),
    )


def record(index: int = 0, outcome: str = "ok", **fields: object) -> Record:
    """Answered in 0.1 s and 10 ms a token, unless `fields` say otherwise."""
    answered = outcome == "ok"
    defaults = {
        "index": index,
        "outcome": outcome,
        "reason": "" if answered else outcome,
        "due_s": float(index),
        "sent_s": index + 0.001 if outcome != "limited" else math.nan,
        "ttft_s": 0.1 if answered else math.nan,
        "e2e_s": 0.13 if answered else math.nan,
        "gaps_s": (0.01, 0.01, 0.01) if answered else (),
        "prompt_tokens": 8,
        "asked_tokens": 4,
        "output_tokens": 4 if answered else 0,
    }
    return Record(**defaults | fields)


def run_of(records: Sequence[Record], target: str = "t", **fields: object) -> Run:
    """A run whose requests were due a second apart."""
    defaults = {
        "target": target,
        "workload": workload([float(index) for index in range(max(1, len(records)))]),
        "records": tuple(records),
        "began": 0.0,
        "elapsed_s": len(records) + 1.0,
        "cpu": 0.1,
        "peak_in_flight": 1,
    }
    return Run(**defaults | fields)
