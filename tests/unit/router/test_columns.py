"""The columns hold what the formulas of `pdserve.latency.cost` say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.kv.layout import KvLayout
from pdserve.latency.cost import DecodeCost, Dispatch, InstanceCost, PrefillCost
from pdserve.rpc.v1 import types_pb2
from services.router.placement.columns import Columns
from services.router.placement.prediction import Habits, decodes, prefills
from services.router.placement.slots import Slots
from services.router.view import NO_WORK, Candidate, Limits, Load, Work

LAYOUT = KvLayout("fingerprint", "float16", 2, 2, 8, 16)
seconds = st.floats(1e-9, 1.0)
decode_lines = st.builds(DecodeCost, seconds, seconds, seconds)
costs = st.builds(
    InstanceCost,
    tp=st.just(1),
    pp=st.integers(1, 4),
    prefill=st.builds(PrefillCost, seconds, seconds, seconds),
    decode=decode_lines,
    decode_large=decode_lines,
    large_from=st.integers(1, 64),
    kv_tokens=st.just(1 << 20),
    prefill_stage_s=st.floats(0, 0.1),
    dispatch=st.builds(Dispatch, seconds, seconds),
)


def rows_of(candidates):
    slots = Slots()
    for each in candidates:
        slots.take(each.incarnation)
    return Columns(slots).rows(candidates)[0]


def candidate(name, cost, load):
    return Candidate(name, name, LAYOUT, 4096, load, 0.0, Limits(batch_tokens=512), cost)


@given(st.lists(costs, min_size=1, max_size=3), st.integers(0, 100), st.integers(0, 9000))
def test_a_step_takes_what_the_formula_says(costs, decoding, context):
    load = Load(decoding, context, decoding)
    rows = rows_of([candidate(str(at), cost, load) for at, cost in enumerate(costs)])
    expected = [cost.decode_s(decoding + 1, context + 300) for cost in costs]
    steps = decodes(rows, 300, Habits(100.0, 5.0)).step_s
    assert steps.tolist() == pytest.approx(expected, rel=1e-6)


@given(st.lists(costs, min_size=1, max_size=3), st.integers(1, 512), st.integers(0, 511))
def test_a_prompt_takes_what_the_formula_says(costs, tokens, cached):
    cached = min(cached, tokens - 1)
    rows = rows_of([candidate(str(at), cost, Load(0, 0)) for at, cost in enumerate(costs)])
    hits = np.full(len(costs), float(cached))
    expected = [cost.prefill_s(tokens - cached, tokens**2 - cached**2) for cost in costs]
    found = prefills(rows, tokens, hits, types_pb2.PRIORITY_NORMAL, 0.0)
    assert found.queue_s.tolist() == [0.0] * len(costs)
    assert found.compute_s.tolist() == pytest.approx(expected, rel=1e-6)


def test_of_the_queue_only_what_goes_first_counts():
    cost = InstanceCost(
        1, 1, PrefillCost(0.0, 1e-3, 0.0), DecodeCost(1, 0, 0), DecodeCost(1, 0, 0), 99, 1
    )
    works = Work(100), Work(10), Work(1)
    load = Load(3, 111, reported=works, dispatched=(*NO_WORK[:2], Work(1000)))
    rows = rows_of([candidate("a", cost, load)])
    queues = {
        priority: prefills(rows, 5, np.zeros(1), priority, 0.0).queue_s[0]
        for priority in (types_pb2.PRIORITY_HIGH, types_pb2.PRIORITY_NORMAL, types_pb2.PRIORITY_LOW)
    }
    assert list(queues.values()) == pytest.approx([0.1, 0.11, 1.111])


def test_only_rows_that_have_changed_are_written_anew():
    cost = InstanceCost(1, 1, PrefillCost(1, 0, 0), DecodeCost(1, 0, 0), DecodeCost(1, 0, 0), 99, 1)
    slots = Slots()
    for name in "ab":
        slots.take(name)
    columns = Columns(slots)
    one, other = candidate("a", cost, Load(0, 7)), candidate("b", cost, Load(0, 8))
    before, _ = columns.rows([one, other])
    after, index = columns.rows([other, candidate("a", cost, Load(0, 9))])
    assert before["context"].tolist() == [7, 8]
    assert after["context"].tolist() == [8, 9]
    assert index.tolist() == [1, 0]
