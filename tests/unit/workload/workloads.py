"""Workloads to test with, made by hand or by hypothesis."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from pdserve.workload.workload import PrefixBlocks, Workload

BLOCK_TOKENS = 512


def workload(
    arrivals: Sequence[float],
    prompts: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
    block_tokens: int = BLOCK_TOKENS,
) -> Workload:
    ones = [1] * len(arrivals)
    return Workload(
        name="made",
        arrival_s=np.array(arrivals, dtype=np.float64),
        prompt_tokens=np.array(prompts or ones, dtype=np.int64),
        output_tokens=np.array(outputs or ones, dtype=np.int64),
        prefix=None if blocks is None else prefix_blocks(blocks, block_tokens),
    )


def prefix_blocks(
    blocks: Sequence[Sequence[int]], block_tokens: int = BLOCK_TOKENS
) -> PrefixBlocks:
    offsets = np.cumsum([0, *(len(ids) for ids in blocks)])
    flat = np.array([each for ids in blocks for each in ids], dtype=np.int64)
    return PrefixBlocks(offsets, flat, block_tokens)


def blocks_of(prefix: PrefixBlocks | None) -> list[list[int]]:
    assert prefix is not None
    return [
        prefix.ids[start:end].tolist()
        for start, end in zip(prefix.offsets[:-1], prefix.offsets[1:], strict=True)
    ]


def same_partition(one: list[list[int]], other: list[list[int]]) -> bool:
    """Whether the same blocks are equal to each other, whatever their ids are."""
    if [len(ids) for ids in one] != [len(ids) for ids in other]:
        return False
    pairs = {pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)}
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


@st.composite
def workloads(draw: st.DrawFn, *, prefixes: bool = False, most: int = 30) -> Workload:
    """Arrivals in whole milliseconds from 0 on, which every format holds exactly."""
    gaps = draw(st.lists(st.integers(0, 100_000), min_size=0, max_size=most - 1))
    size = len(gaps) + 1
    tokens = st.lists(st.integers(1, 5000), min_size=size, max_size=size)
    prompts = draw(tokens)
    blocks = None
    if prefixes:
        blocks = [
            draw(st.lists(st.integers(0, 40), max_size=-(-prompt // BLOCK_TOKENS)))
            for prompt in prompts
        ]
    arrivals = (np.cumsum([0, *gaps]) / 1000).tolist()
    return workload(arrivals, prompts, draw(tokens), blocks)
