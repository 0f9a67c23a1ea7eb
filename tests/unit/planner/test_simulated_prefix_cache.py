"""The simulated prefix cache against one that is least recently used, block by block."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import DISTSERVE, Policy
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.shared_prefix import cacheable_tokens
from pdserve.workload.workload import PrefixBlocks, Workload

BLOCK = 8
KV_BYTES = 100.0
PLENTY = 1 << 20


def cost(kv_tokens):
    line = DecodeCost(1e-3, 0.0, 0.0)
    return InstanceCost(1, 1, PrefillCost(1e-3, 1e-4, 1e-8), line, line, 1, kv_tokens)


def deployment(roles, kv_tokens, policy, bytes_per_s=np.inf):
    instances = [SimulatedInstance(role, cost(kv_tokens), policy) for role in roles]
    return Deployment(instances, separate_links(len(roles), bytes_per_s), KV_BYTES)


@st.composite
def conversations(draw):
    """Requests one at a time; each continues one of three texts for a few blocks, or parts from it.

    `rest` tokens come after the last whole block.
    """
    ids, lengths, prompts = [], [], []
    for _ in range(draw(st.integers(1, 25))):
        text = draw(st.integers(0, 2))
        blocks = draw(st.integers(0, 6))
        parts = draw(st.integers(0, 6))
        fresh = 100 + len(ids)
        chain = [10 * text + k if k < parts else fresh + k for k in range(blocks)]
        ids += chain
        lengths.append(blocks)
        prompts.append(blocks * BLOCK + draw(st.integers(0 if blocks else 1, BLOCK - 1)))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    numbers = {block: number for number, block in enumerate(dict.fromkeys(ids))}
    count = len(prompts)
    return Workload(
        "conversations",
        np.arange(count) * 10.0,
        np.array(prompts),
        np.full(count, 2),
        PrefixBlocks(offsets, np.array([numbers[block] for block in ids], np.int64), BLOCK),
    )


def requests(workload):
    prefix = workload.prefix
    for r in range(len(workload)):
        yield prefix.ids[prefix.offsets[r] : prefix.offsets[r + 1]].tolist()


def usable(tokens, prompts):
    """Whole blocks of a cache, and the last token is always computed."""
    return np.minimum(tokens, prompts - 1) // BLOCK * BLOCK


@settings(max_examples=100)
@given(conversations())
def test_with_room_for_all_everything_seen_before_is_found(workload):
    made = deployment(["both"], PLENTY, Policy(block_size=BLOCK))
    result = simulate(made, workload, Slo())
    expected = usable(cacheable_tokens(workload), workload.prompt_tokens)
    assert result.cached_tokens.tolist() == expected.tolist()


@settings(max_examples=100)
@given(conversations(), st.integers(6, 20))
def test_nothing_is_found_that_least_recently_used_has_lost(workload, capacity):
    made = deployment(["both"], capacity * BLOCK, Policy(block_size=BLOCK))
    result = simulate(made, workload, Slo())
    lru: OrderedDict[int, None] = OrderedDict()
    touches = 0
    for r, ids in enumerate(requests(workload)):
        if np.isnan(result.finished_s[r]):
            continue
        held = 0
        while held < len(ids) and ids[held] in lru:
            held += 1
        most = usable(held * BLOCK, workload.prompt_tokens[r])
        assert result.cached_tokens[r] <= most
        if touches <= capacity:  # too few to forget any
            assert result.cached_tokens[r] == most
        for block in ids:
            lru[block] = None
            lru.move_to_end(block)
        touches += len(ids)
        while len(lru) > capacity:
            lru.popitem(last=False)


@settings(max_examples=50)
@given(conversations(), st.sampled_from([16 * BLOCK, PLENTY]))
def test_a_hit_only_saves(workload, kv_tokens):
    """At low load nobody waits, so that TTFT is what the uncached tokens take."""
    made = deployment(["both"], kv_tokens, Policy(block_size=BLOCK))
    with_cache = simulate(made, workload, Slo())
    without = simulate(made, replace(workload, prefix=None), Slo())
    assert not without.cached_tokens.any()
    assert np.all(with_cache.cached_tokens < workload.prompt_tokens)
    past, prompts = with_cache.cached_tokens, workload.prompt_tokens
    expected = [
        made.instances[0].cost.prefill_s(prompt - held, prompt**2 - held**2)
        for prompt, held in zip(prompts.tolist(), past.tolist(), strict=True)
    ]
    served = np.isfinite(with_cache.ttft_s)
    assert with_cache.ttft_s[served] == pytest.approx(np.array(expected)[served], rel=1e-6)
    assert np.all(with_cache.ttft_s[served] <= without.ttft_s[served] + 1e-12)


@settings(max_examples=50)
@given(conversations())
def test_decode_is_sent_only_what_it_lacks(workload):
    """It has seen the same prompts as prefill has; whole prompts may come from its cache."""
    made = deployment(["prefill", "decode"], PLENTY, Policy(block_size=BLOCK), bytes_per_s=1e6)
    result = simulate(made, workload, Slo())
    found = np.minimum(cacheable_tokens(workload), workload.prompt_tokens) // BLOCK * BLOCK
    sent = (workload.prompt_tokens - found).sum() * KV_BYTES
    assert result.sent_bytes.max() == pytest.approx(sent)


def test_the_blocks_touched_longest_ago_are_forgotten():
    """Four blocks fit: A comes back after three others and is found, then after four and is not."""
    ids = np.array([0, 1, 2, 3, 0, 4, 5, 6, 7, 0])
    count = len(ids)
    workload = Workload(
        "rotation",
        np.arange(count) * 10.0,
        np.full(count, BLOCK + 1),
        np.full(count, 2),
        PrefixBlocks(np.arange(count + 1), ids, BLOCK),
    )
    made = deployment(["both"], 4 * BLOCK, Policy(block_size=BLOCK))
    found = simulate(made, workload, Slo()).cached_tokens > 0
    assert np.flatnonzero(found).tolist() == [4]


def test_an_engine_without_paged_memory_has_no_prefix_cache():
    prefix = PrefixBlocks(np.arange(3), np.zeros(2, np.int64), BLOCK)
    workload = Workload("twice", np.array([0.0, 9.0]), np.full(2, 20), np.full(2, 2), prefix)
    made = deployment(["both"], PLENTY, DISTSERVE)
    assert not simulate(made, workload, Slo()).cached_tokens.any()
