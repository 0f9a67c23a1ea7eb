"""Segments cover what is ready, once, and no more."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_pair import CPU, LAYOUT, kv

from pdserve.kv.layout import KvPart, rank_part
from pdserve.kv.pool import KvPool
from pdserve.kv.segment import PoolShard, Segment, next_segment


@st.composite
def progress(draw):
    """A part, the tokens that its layers start from, and how many become ready, step by step."""
    layers, heads = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    first = draw(st.integers(0, 3))
    part = KvPart(range(first, first + layers), range(2, 2 + heads))
    begin = draw(st.integers(0, 5))
    steps = [[begin] * layers]
    for _ in range(draw(st.integers(1, 5))):
        step = [tokens + draw(st.integers(0, 9)) for tokens in steps[-1]]
        steps.append(step)
    return part, steps


@settings(max_examples=100, deadline=None)
@given(progress(), st.integers(1, 60))
def test_every_cell_that_becomes_ready_is_sent_once(drawn, max_cells):
    part, (begin, *steps) = drawn
    sent = list(begin)
    for ready in steps:
        while (segment := next_segment(part, sent, ready, max_cells)) is not None:
            cells = len(segment.layers) * len(segment.heads) * len(segment.tokens)
            assert cells > 0
            assert cells <= max(max_cells, len(part.heads))
            assert segment.heads == part.heads
            for layer in segment.layers:
                i = layer - part.layers.start
                assert sent[i] == segment.tokens.start
                assert segment.tokens.stop <= ready[i]
                sent[i] = segment.tokens.stop
        assert sent == ready


def test_layers_at_the_same_tokens_go_together():
    part = KvPart(range(8), range(2))
    assert next_segment(part, [0] * 8, [10] * 6 + [4] * 2, 10_000) == Segment(
        range(6), range(2), range(10)
    )
    assert next_segment(part, [0] * 8, [10] * 8, 60) == Segment(range(3), range(2), range(10))
    assert next_segment(part, [0] * 8, [10] * 8, 6) == Segment(range(1), range(2), range(3))


def test_a_segment_is_copied_between_pools_of_other_shapes():
    source = KvPool(LAYOUT, 8, CPU)
    source.data.copy_(torch.arange(source.data.numel()).view(source.data.shape))
    held = rank_part(LAYOUT, 0)
    segment = Segment(range(2, 5), range(1, 3), range(3, 9))
    staging = torch.empty(segment.size(LAYOUT.cell_bytes), dtype=torch.uint8)
    PoolShard(source, held).gather(segment, [7, 0, 3], staging)
    target = KvPool(LAYOUT, 8, CPU)
    PoolShard(target, held).scatter(segment, [1, 2, 4], staging)
    expected = torch.zeros_like(kv(target, [1, 2, 4], 0, 12))
    expected[2:5, :, 3:9, 1:3] = kv(source, [7, 0, 3], 0, 12)[2:5, :, 3:9, 1:3]
    assert torch.equal(kv(target, [1, 2, 4], 0, 12), expected)
