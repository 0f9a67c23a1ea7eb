"""Many streams at once over two prefill and two decode instances."""

import random
from dataclasses import replace

import pytest

from tests.integration.harness import (
    PATIENT,
    assert_nothing_left,
    by_ids,
    cluster,
    generate_all,
    greedy,
)

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STREAMS = 64


async def test_64_streams_of_mixed_lengths_complete_in_order_and_leave_nothing() -> None:
    """The KV pools are small enough that requests wait for blocks and sequences are preempted."""
    rng = random.Random(3)
    lengths = [(rng.choice((8, 20, 40, 80, 160)), rng.randint(2, 24)) for _ in range(STREAMS)]
    requests = [
        by_ids([rng.randrange(1000, 40000) for _ in range(prompt)], greedy(new, ignore_eos=True))
        for prompt, new in lengths
    ]
    instance = replace(PATIENT, max_model_len=512, kv_memory_bytes=48 << 20, max_batch_seqs=16)
    async with cluster(2, 2, instance) as (started, channel):
        answers = await generate_all(channel, requests)
        for answer, (_, new) in zip(answers, lengths, strict=True):
            assert len(answer.tokens) == new
        used = {
            (answer.end.attempts[-1].prefill, answer.end.attempts[-1].decode) for answer in answers
        }
        assert {prefill for prefill, _ in used} == {"prefill-0", "prefill-1"}
        assert {decode for _, decode in used} == {"decode-0", "decode-1"}
        await assert_nothing_left(started)
