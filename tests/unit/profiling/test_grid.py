"""The grid stays within what an instance computes in one step, and tells its costs apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pdserve.profiling.grid import Limits, grid
from pdserve.profiling.shape import Kind

SERVED = Limits(max_tokens=512, max_seqs=64, max_len=8192, blocks=3000, block_size=16)


def of(kind: Kind, limits: Limits = SERVED) -> list:
    return [shape for shape in grid(limits) if shape.kind is kind]


@given(
    st.builds(
        Limits,
        max_tokens=st.integers(32, 16384),
        max_seqs=st.integers(4, 1024),
        max_len=st.integers(64, 131072),
        blocks=st.integers(16, 100_000),
        block_size=st.sampled_from([1, 8, 16, 64]),
    )
)
def test_no_shape_exceeds_a_limit(limits: Limits) -> None:
    for shape in grid(limits):
        assert shape.tokens + shape.batch <= limits.max_tokens
        assert 1 <= len(shape.lengths) <= limits.max_seqs
        assert max(shape.lengths) < limits.max_len
        assert min(shape.lengths) > 1
        used = sum(-(-length // limits.block_size) for length in shape.lengths)
        assert used <= limits.blocks
        assert all(prompt.new > 1 for prompt in shape.prompts)
        assert all(prompt.past % limits.block_size == 0 for prompt in shape.prompts)


def test_nothing_is_measured_twice() -> None:
    shapes = grid(SERVED)
    assert len(shapes) == len(set(shapes))


def test_the_limits_are_reached() -> None:
    assert max(shape.tokens for shape in of(Kind.PREFILL)) == 512
    assert max(shape.batch for shape in of(Kind.DECODE)) == 64
    assert max(max(shape.lengths) for shape in grid(SERVED)) > 8000


def test_prefills_are_single_batched_and_after_a_past() -> None:
    prompts = [shape.prompts for shape in of(Kind.PREFILL)]
    assert any(len(each) == 1 and not each[0].past for each in prompts)
    assert any(len(each) > 1 for each in prompts)
    assert any(each[0].past for each in prompts)


def test_mixed_steps_come_with_and_without_a_past() -> None:
    pasts = {bool(shape.prompts[0].past) for shape in of(Kind.MIXED)}
    assert pasts == {False, True}


def test_the_terms_of_each_cost_vary_independently() -> None:
    prefill = [(1, shape.tokens, shape.squares) for shape in of(Kind.PREFILL)]
    decode = [(1, shape.context, shape.batch) for shape in of(Kind.DECODE)]
    for rows in (np.array(prefill, float), np.array(decode, float)):
        assert np.linalg.cond(rows / rows.max(axis=0)) < 20


def test_a_small_instance_has_shapes_enough_for_a_fit() -> None:
    small = Limits(max_tokens=32, max_seqs=4, max_len=64, blocks=20, block_size=16)
    assert len(of(Kind.PREFILL, small)) >= 3
    assert len(of(Kind.DECODE, small)) >= 3
