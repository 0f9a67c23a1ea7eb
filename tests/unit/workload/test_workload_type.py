import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workloads import blocks_of, workload, workloads

from pdserve.errors import ConfigError
from pdserve.workload.workload import Workload


@given(workloads(), st.floats(1e-3, 1e3))
def test_at_rate_keeps_the_requests_their_order_and_the_shape_of_their_arrivals(
    made: Workload, rate: float
) -> None:
    stretched = made.at_rate(rate)
    assert np.array_equal(stretched.prompt_tokens, made.prompt_tokens)
    assert np.all(np.diff(stretched.arrival_s) >= 0)
    if made.duration_s > 0:
        assert stretched.rate == pytest.approx(rate)
        shape = made.arrival_s / made.duration_s
        assert stretched.arrival_s / stretched.duration_s == pytest.approx(shape)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_at_rate_refuses_what_is_no_rate(rate: float) -> None:
    with pytest.raises(ConfigError, match="rate is"):
        workload([0, 1]).at_rate(rate)


@given(workloads(prefixes=True), st.data())
def test_taking_requests_takes_their_blocks(made: Workload, data: st.DataObject) -> None:
    assert made.prefix is not None
    places = st.lists(st.integers(0, len(made) - 1), max_size=40)
    indices = np.array(data.draw(places), dtype=np.int64)
    blocks = blocks_of(made.prefix)
    assert blocks_of(made.prefix.take(indices)) == [blocks[index] for index in indices]


@pytest.mark.parametrize(
    "make",
    [
        lambda: workload([]),
        lambda: workload([1, 0]),
        lambda: workload([0, float("nan")]),
        lambda: workload([0], prompts=[0]),
        lambda: workload([0], outputs=[0]),
        lambda: workload([0, 1], prompts=[1]),
    ],
)
def test_what_is_no_workload_is_refused(make) -> None:
    with pytest.raises(ConfigError, match="made: "):
        make()
