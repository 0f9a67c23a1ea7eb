"""Timed instances take the times that the simulator is given."""

import pytest

from benchmarks.timed_engine import TimedRunner, step_s
from pdserve.kv.prefix import HashChain
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import Chunk
from pdserve.scheduling.sequence import Sequence, Work

COST = InstanceCost(
    tp=1,
    pp=1,
    prefill=PrefillCost(0.001, 1e-5, 1e-8),
    decode=DecodeCost(0.002, 1e-6, 1e-4),
    decode_large=DecodeCost(0.002, 1e-6, 1e-4),
    large_from=99,
    kv_tokens=1000,
)


def chunk(prompt: int, outputs: int, computed: int, tokens: int) -> Chunk[Sequence]:
    sequence = Sequence(
        key="s",
        tokens=[1] * (prompt + outputs),
        prompt_tokens=prompt,
        sampling=SamplingParams(),
        end_token_ids=frozenset(),
        work=Work.BOTH,
        chain=HashChain("m", 4),
    )
    sequence.computed = computed
    return Chunk(sequence, tokens)


def test_a_step_takes_what_the_formulas_say():
    whole, later = chunk(8, 0, 0, 8), chunk(9, 0, 4, 5)
    last_of_prompt = chunk(9, 0, 8, 1)
    decoding = chunk(5, 2, 6, 1)
    assert step_s(COST, [whole, later]) == pytest.approx(COST.prefill_s(13, 64 + 81 - 16))
    assert step_s(COST, [last_of_prompt]) == pytest.approx(COST.prefill_s(1, 81 - 64))
    assert step_s(COST, [decoding, decoding]) == pytest.approx(COST.decode_s(2, 14))
    assert step_s(COST, [whole, decoding]) == pytest.approx(COST.mixed_s(8, 64, 1, 7))


def test_layers_are_told_once_each_and_tokens_come_where_texts_end():
    told: list[tuple[int, int]] = []
    runner = TimedRunner(COST, layers=5, groups=2)
    sampled = runner.run([chunk(8, 0, 0, 8), chunk(9, 0, 0, 4)], lambda *group: told.append(group))
    assert told == [(0, 2), (2, 5)]
    assert sampled[0] is not None
    assert sampled[1] is None
