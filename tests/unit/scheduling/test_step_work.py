"""What a step computes, in the terms of the cost model."""

from pdserve.kv.blocks import BlockPool
from pdserve.kv.prefix import HashChain
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import TokenBudget
from pdserve.scheduling.scheduler import Scheduler
from pdserve.scheduling.sequence import Sequence, Work
from pdserve.scheduling.step_work import StepWork, step_work


def a_scheduler(budget):
    return Scheduler(BlockPool(64), 4, TokenBudget(budget, 8), 256)


def add(scheduler, key, tokens, work=Work.BOTH):
    scheduler.add(
        Sequence(
            key=key,
            tokens=list(tokens),
            prompt_tokens=len(tokens),
            sampling=SamplingParams(max_tokens=9),
            end_token_ids=frozenset(),
            work=work,
            chain=HashChain("model", 4),
        )
    )


def step(scheduler):
    chunks = scheduler.schedule().chunks
    work = step_work(chunks)
    for chunk in chunks:
        whole = chunk.tokens == chunk.sequence.uncomputed
        scheduler.commit(chunk, 99 if whole else None)
    return work


def test_a_prompt_in_chunks_and_then_its_decoding():
    scheduler = a_scheduler(6)
    add(scheduler, "a", range(10))
    assert step(scheduler) == StepWork(tokens=6, squares=36, batch=0, context=0)
    assert step(scheduler) == StepWork(tokens=4, squares=100 - 36, batch=0, context=0)
    assert step(scheduler) == StepWork(tokens=0, squares=0, batch=1, context=11)
    add(scheduler, "b", range(20, 28))
    assert step(scheduler) == StepWork(tokens=5, squares=25, batch=1, context=12)


def test_the_end_of_a_cached_prompt_is_prefill_where_nothing_decodes():
    scheduler = a_scheduler(64)
    add(scheduler, "a", range(9), Work.PREFILL)
    step(scheduler)
    add(scheduler, "b", range(9), Work.PREFILL)
    assert step(scheduler) == StepWork(tokens=1, squares=81 - 64, batch=0, context=0)


def test_a_step_of_nothing_is_nothing():
    assert step_work([]) == StepWork(0, 0, 0, 0)
