"""Who holds which KV, and who pulls what from whom."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.errors import IncompatibleLayoutError
from pdserve.kv.layout import (
    KvLayout,
    KvPart,
    check_compatible,
    intersect,
    pull_plan,
    pullers,
    rank_part,
)
from pdserve.kv.wire import layout_from_proto, layout_to_proto

bounded = settings(max_examples=40, deadline=None)
LAYOUT = KvLayout("f", "float32", layers=7, kv_heads=3, head_dim=4, block_size=16)


@st.composite
def pairs(draw):
    """Two layouts of one model that differ in block size, TP and PP."""
    layers, heads = draw(st.integers(1, 6)), draw(st.integers(1, 5))

    def side():
        return KvLayout(
            "f",
            "bfloat16",
            layers=layers,
            kv_heads=heads,
            head_dim=8,
            block_size=draw(st.sampled_from([1, 8, 16])),
            tp=draw(st.integers(1, 6)),
            pp=draw(st.integers(1, min(layers, 4))),
        )

    return side(), side()


@bounded
@given(pairs())
def test_ranks_together_hold_everything(pair):
    layout, _ = pair
    held = {cell for rank in range(layout.ranks) for cell in rank_part(layout, rank).cells}
    assert held == set(KvPart(range(layout.layers), range(layout.kv_heads)).cells)


@bounded
@given(pairs())
def test_a_rank_pulls_exactly_what_it_holds_each_cell_once(pair):
    src, dst = pair
    for rank in range(dst.ranks):
        pulled = Counter(c for part in pull_plan(src, dst, rank).values() for c in part.cells)
        assert pulled == Counter(rank_part(dst, rank).cells)


@bounded
@given(pairs())
def test_a_rank_is_asked_only_for_what_it_holds(pair):
    src, dst = pair
    for rank in range(dst.ranks):
        for source, part in pull_plan(src, dst, rank).items():
            assert set(part.cells) <= set(rank_part(src, source).cells)


@bounded
@given(pairs())
def test_intersection_is_what_both_hold(pair):
    src, dst = pair
    for source in range(src.ranks):
        for rank in range(dst.ranks):
            part = intersect(src, source, dst, rank)
            both = set(rank_part(src, source).cells) & set(rank_part(dst, rank).cells)
            assert set(part.cells if part else ()) == both


@bounded
@given(pairs())
def test_a_source_knows_who_pulls_from_it(pair):
    src, dst = pair
    plans = {rank: pull_plan(src, dst, rank) for rank in range(dst.ranks)}
    for source in range(src.ranks):
        assert pullers(src, source, dst) == {r for r, plan in plans.items() if source in plan}


def test_copies_of_a_head_share_the_pulls():
    src = replace(LAYOUT, kv_heads=1, tp=4)
    dst = replace(LAYOUT, kv_heads=1, tp=4)
    assert [list(pull_plan(src, dst, rank)) for rank in range(4)] == [[0], [1], [2], [3]]


def test_the_first_stages_and_ranks_hold_the_remainder():
    layout = replace(LAYOUT, tp=2, pp=3)
    parts = [rank_part(layout, rank) for rank in range(6)]
    assert [p.layers for p in parts[::2]] == [range(3), range(3, 5), range(5, 7)]
    assert [p.heads for p in parts[:2]] == [range(2), range(2, 3)]


def test_sizes():
    assert LAYOUT.cell_bytes == 2 * 4 * 4
    assert LAYOUT.token_bytes == 7 * 3 * 32
    assert LAYOUT.block_bytes == 16 * LAYOUT.token_bytes
    shard = replace(LAYOUT, tp=2, pp=3).shard(0)
    assert (shard.layers, shard.kv_heads, shard.ranks) == (3, 2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "g"},
        {"dtype": "float16"},
        {"layers": 8},
        {"kv_heads": 4},
        {"head_dim": 8},
        {"protocol": 0},
    ],
)
def test_layouts_of_different_models_or_protocols_do_not_pair(change):
    (name, theirs), *_ = change.items()
    with pytest.raises(IncompatibleLayoutError) as caught:
        check_compatible(LAYOUT, replace(LAYOUT, **change))
    assert caught.value.field == name
    assert repr(getattr(LAYOUT, name)) in str(caught.value)
    assert repr(theirs) in str(caught.value)


def test_versions_that_hand_over_in_different_ways_are_told_apart_on_the_wire():
    message = layout_to_proto(LAYOUT)
    assert layout_from_proto(message) == LAYOUT
    message.ClearField("protocol")
    with pytest.raises(IncompatibleLayoutError, match="versions of pdserve do not fit together"):
        check_compatible(layout_from_proto(message), LAYOUT)


def test_block_size_tp_and_pp_may_differ():
    check_compatible(LAYOUT, replace(LAYOUT, block_size=4, tp=2, pp=3))


@pytest.mark.parametrize(
    "change", [{"dtype": "int4"}, {"layers": 0}, {"tp": 0}, {"pp": 8}, {"block_size": -1}]
)
def test_impossible_layouts_are_refused(change):
    with pytest.raises(IncompatibleLayoutError) as caught:
        replace(LAYOUT, **change)
    assert caught.value.field == next(iter(change))


def test_unknown_rank_is_refused():
    with pytest.raises(IncompatibleLayoutError, match=r"rank is 1; .* \[0, 0\]"):
        rank_part(LAYOUT, 1)
