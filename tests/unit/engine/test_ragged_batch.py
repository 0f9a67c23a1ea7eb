import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.engine.batch import RaggedBatch, Span
from pdserve.engine.grouping import Extent, group_extents
from tests.devices import CPU, CUDA, needs_gpu

SIZE = 4
untimed = settings(deadline=None)


@st.composite
def span_lists(draw: st.DrawFn) -> list[Span]:
    spans = []
    for index in range(draw(st.integers(1, 12))):
        start = draw(st.integers(0, 40))
        length = draw(st.integers(1, 20))
        needed = -(-(start + length) // SIZE)
        spare = draw(st.integers(0, 3))
        blocks = [100 * index + i for i in range(needed + spare)]
        tokens = [1000 * index + i for i in range(length)]
        spans.append(Span(tokens, start, blocks, draw(st.booleans())))
    return spans


@untimed
@given(span_lists())
def test_every_token_has_one_row_with_its_own_position_and_slot(spans: list[Span]) -> None:
    batch = RaggedBatch.build(spans, SIZE, CPU)
    rows = zip(
        batch.token_ids.tolist(), batch.positions.tolist(), batch.slots.tolist(), strict=True
    )
    expected = [
        (
            token,
            span.start + i,
            span.blocks[(span.start + i) // SIZE] * SIZE + (span.start + i) % SIZE,
        )
        for span in spans
        for i, token in enumerate(span.token_ids)
    ]
    assert sorted(rows) == sorted(expected)


@untimed
@given(span_lists())
def test_sampled_rows_are_the_last_tokens_in_the_order_of_the_spans(spans: list[Span]) -> None:
    batch = RaggedBatch.build(spans, SIZE, CPU)
    expected = [span.token_ids[-1] for span in spans if span.sample]
    assert batch.token_ids[batch.sampled].tolist() == expected


@untimed
@given(span_lists())
def test_groups_cover_all_rows_and_padding_comes_back(spans: list[Span]) -> None:
    batch = RaggedBatch.build(spans, SIZE, CPU)
    groups = [*batch.paged, *batch.fresh]
    covered = [row for group in groups for row in range(group.rows.start, group.rows.stop)]
    assert covered == list(range(len(batch.token_ids)))
    for group in groups:
        rows = batch.token_ids[group.rows]
        if group.padding is None:
            assert len(rows) == group.spans * group.queries
        else:
            assert len(group.padding.spread) == group.spans * group.queries
            assert torch.equal(rows[group.padding.spread][group.padding.gather], rows)


@untimed
@given(span_lists())
def test_tables_hold_the_blocks_of_their_spans_and_no_others(spans: list[Span]) -> None:
    batch = RaggedBatch.build(spans, SIZE, CPU)
    for group in batch.paged:
        first_tokens = batch.token_ids[group.rows]
        if group.padding is not None:
            first_tokens = first_tokens[group.padding.spread]
        owners = first_tokens.view(group.spans, -1)[:, 0] // 1000
        for owner, row in zip(owners.tolist(), group.table.view(group.spans, -1), strict=True):
            blocks = row.tolist()
            used = -(-spans[owner].end // SIZE)
            assert blocks[:used] == list(spans[owner].blocks[:used])
            assert set(blocks[used:]) <= {spans[owner].blocks[0]}


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (Span([], 0, [1], True), "span of 0 tokens"),
        (Span([1], -1, [1], True), "from position -1"),
        (Span([1] * 9, 0, [1, 2], True), "2 blocks of 4 tokens cannot hold 9 tokens"),
        (Span([1], 8, [1, 2], True), "cannot hold 9 tokens"),
    ],
)
def test_impossible_spans_are_refused(span: Span, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaggedBatch.build([Span([1], 0, [0], True), span], SIZE, CPU)


@untimed
@given(st.lists(st.builds(Extent, st.integers(1, 600), st.integers(1, 4000)), max_size=40))
def test_each_span_is_in_exactly_one_group(extents: list[Extent]) -> None:
    groups = group_extents(extents)
    assert sorted(index for group in groups for index in group) == list(range(len(extents)))


def test_decode_steps_of_like_context_share_a_call() -> None:
    assert group_extents([Extent(1, 250 + i) for i in range(16)]) == [list(range(16))]


def test_one_long_context_does_not_pad_the_others() -> None:
    assert group_extents([Extent(1, 8000), *[Extent(1, 100)] * 15]) == [list(range(1, 16)), [0]]


def test_short_prompts_are_not_padded_to_a_long_one() -> None:
    groups = group_extents([Extent(512, 512), Extent(30, 30), Extent(32, 32)])
    assert groups == [[1, 2], [0]]


@pytest.mark.gpu
@needs_gpu
def test_a_batch_reaches_a_busy_gpu_unharmed() -> None:
    """The copies from pinned memory wait in the stream; the memory must not be used anew before."""
    torch.cuda._sleep(500_000_000)
    batches = [
        RaggedBatch.build([Span([i] * 50, i, list(range(40)), True)], SIZE, CUDA) for i in range(50)
    ]
    for i, batch in enumerate(batches):
        assert batch.token_ids.tolist() == [i] * 50
        assert batch.positions.tolist() == list(range(i, i + 50))


@pytest.mark.gpu
@needs_gpu
def test_a_batch_without_wanted_logits_reaches_a_gpu() -> None:
    assert RaggedBatch.build([Span([1, 2], 0, [0], False)], SIZE, CUDA).sampled.tolist() == []
