"""Where sequences stand, who gets blocks, and who loses them."""

import pytest

from pdserve.kv.blocks import BlockCounts, BlockPool
from pdserve.kv.prefix import HashChain
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import TokenBudget
from pdserve.scheduling.load import QueuedWork, SchedulerLoad
from pdserve.scheduling.scheduler import Scheduler
from pdserve.scheduling.sequence import FinishReason, Sequence, State, Work
from pdserve.scheduling.urgency import Priority, Urgency

BLOCK = 4


def a_scheduler(blocks=8, *, max_tokens=64, max_seqs=8, max_model_len=None):
    longest = max_model_len or blocks * BLOCK
    return Scheduler(BlockPool(blocks), BLOCK, TokenBudget(max_tokens, max_seqs), longest)


def a_sequence(key, tokens, work=Work.BOTH, *, ends=(), **sampling):
    return Sequence(
        key=key,
        tokens=list(range(tokens)) if isinstance(tokens, int) else list(tokens),
        prompt_tokens=tokens if isinstance(tokens, int) else len(tokens),
        sampling=SamplingParams(**({"max_tokens": 100} | sampling)),
        end_token_ids=frozenset(ends),
        work=work,
        chain=HashChain("model", BLOCK),
    )


def unlike(key, tokens, work=Work.BOTH, **sampling):
    """A sequence that shares no prefix with others."""
    base = 1000 * sum(key.encode())
    return a_sequence(key, range(base, base + tokens), work, **sampling)


def step(scheduler, token=99):
    """Schedules and commits; returns the keys that took part."""
    work = scheduler.schedule()
    for chunk in work.chunks:
        last = chunk.tokens == chunk.sequence.uncomputed
        scheduler.commit(chunk, token if last else None)
    scheduler.check()
    return [chunk.sequence.key for chunk in work.chunks]


def test_arrivals_are_admitted_in_order_and_nobody_overtakes_one_that_does_not_fit():
    scheduler = a_scheduler(blocks=4)
    for key, tokens in (("first", 6), ("large", 12), ("small", 2)):
        scheduler.add(unlike(key, tokens))
    assert step(scheduler) == ["first"]
    assert scheduler.load().waiting == 2
    scheduler.remove(scheduler.get("first"))
    assert step(scheduler) == ["large", "small"]


def test_no_more_run_at_once_than_allowed_loading_ones_included():
    scheduler = a_scheduler(max_seqs=2)
    scheduler.add(unlike("loading", 4, Work.DECODE))
    scheduler.add(unlike("running", 4))
    scheduler.add(unlike("waiting", 4))
    assert step(scheduler) == ["running"]
    assert scheduler.get("loading").state is State.LOADING
    assert scheduler.get("waiting").state is State.WAITING


def test_the_token_budget_bounds_admission_too():
    scheduler = a_scheduler(max_tokens=6)
    scheduler.add(unlike("a", 5))
    scheduler.add(unlike("b", 5))
    scheduler.add(unlike("c", 5))
    chunks = scheduler.schedule().chunks
    assert [(chunk.sequence.key, chunk.tokens) for chunk in chunks] == [("a", 5), ("b", 1)]


def test_the_latest_arrival_is_preempted_and_comes_back_whole():
    scheduler = a_scheduler(blocks=2)
    scheduler.add(unlike("old", 4))
    scheduler.add(unlike("young", 4))
    assert step(scheduler) == ["old", "young"]
    assert step(scheduler) == ["old"]
    young = scheduler.get("young")
    assert (young.state, young.blocks, young.computed) == (State.WAITING, [], 0)
    assert young.preemptions == 1
    assert young.tokens[-1] == 99
    scheduler.remove(scheduler.get("old"))
    assert step(scheduler) == ["young"]
    assert len(young.tokens) == 6


def test_a_preempted_sequence_does_not_lose_its_place():
    scheduler = a_scheduler(blocks=2)
    for key in ("old", "young", "new"):
        scheduler.add(unlike(key, 4))
    step(scheduler)
    assert step(scheduler) == ["old"]
    scheduler.remove(scheduler.get("old"))
    assert step(scheduler) == ["young"]


def test_a_preempted_sequence_finds_its_own_blocks_in_the_cache():
    scheduler = a_scheduler(blocks=3)
    scheduler.add(unlike("old", 4))
    scheduler.add(unlike("young", 8))
    step(scheduler)
    step(scheduler)
    young = scheduler.get("young")
    assert young.state is State.WAITING
    scheduler.remove(scheduler.get("old"))
    (chunk,) = scheduler.schedule().chunks
    assert chunk.sequence is young
    assert young.cached_tokens > 0
    assert chunk.tokens == len(young.tokens) - young.cached_tokens


def test_waiting_sequences_keep_their_order_when_a_late_loader_is_preempted():
    scheduler = a_scheduler(blocks=4)
    for key, work in (("a", Work.BOTH), ("b", Work.BOTH), ("late", Work.DECODE)):
        scheduler.add(unlike(key, 3, work))
    step(scheduler)  # "late" loads meanwhile
    scheduler.add(unlike("d", 3))
    for _ in range(2):
        step(scheduler)  # "a" takes the last block, "b" loses its own
    assert scheduler.get("b").state is State.WAITING
    scheduler.loaded(scheduler.get("late"), 5)
    for _ in range(9):
        step(scheduler)
    assert scheduler.get("late").state is State.WAITING
    scheduler.remove(scheduler.get("a"))
    assert next(sequence.key for sequence in scheduler.schedule().admitted) == "b"


def test_a_decode_sequence_loads_then_runs_from_the_first_token():
    scheduler = a_scheduler()
    scheduler.add(a_sequence("d", 8, Work.DECODE))
    plan = scheduler.schedule()
    sequence = scheduler.get("d")
    assert plan.admitted == [sequence]
    assert plan.chunks == []
    assert len(sequence.blocks) == 3, "8 tokens and the slot of the ninth"
    assert not scheduler.has_work
    assert scheduler.loaded(sequence, 42) is None
    assert sequence.tokens[8:] == [42]
    assert step(scheduler) == ["d"]
    assert sequence.tokens[8:] == [42, 99]


def test_a_first_token_that_ends_the_generation_ends_it_at_once():
    scheduler = a_scheduler()
    scheduler.add(a_sequence("d", 8, Work.DECODE, ends=[42]))
    scheduler.schedule()
    assert scheduler.loaded(scheduler.get("d"), 42) is FinishReason.STOP
    assert scheduler.get("d") is None
    assert scheduler.pool.counts().active == 0


def test_a_preempted_decode_sequence_computes_its_own_kv():
    scheduler = a_scheduler(blocks=3)
    scheduler.add(unlike("old", 4))
    scheduler.add(unlike("d", 3, Work.DECODE))
    step(scheduler)
    scheduler.loaded(scheduler.get("d"), 5)
    for _ in range(5):
        step(scheduler)
    decode = scheduler.get("d")
    assert decode.preemptions == 1
    scheduler.remove(scheduler.get("old"))
    assert step(scheduler) == ["d"]
    assert decode.state is State.RUNNING


def test_the_urgent_go_first_and_are_preempted_last():
    scheduler = a_scheduler(blocks=2)
    for key, priority in (
        ("low", Priority.LOW),
        ("normal", Priority.NORMAL),
        ("high", Priority.HIGH),
    ):
        sequence = unlike(key, 4)
        sequence.urgency = Urgency(priority)
        scheduler.add(sequence)
    assert step(scheduler) == ["high", "normal"]
    assert step(scheduler) == ["high"], "which takes the block that it needs from the other"
    assert scheduler.get("normal").state is State.WAITING
    scheduler.remove(scheduler.get("high"))
    assert step(scheduler) == ["normal"], "the one that came back has kept its place"


@pytest.mark.parametrize("ends", [(), (99,)])
def test_a_prefill_is_held_until_it_is_removed_even_when_its_token_is_the_last(ends):
    scheduler = a_scheduler()
    scheduler.add(a_sequence("p", 8, Work.PREFILL, ends=ends))
    assert step(scheduler) == ["p"]
    assert scheduler.get("p").state is State.HELD
    assert not scheduler.has_work
    assert scheduler.pool.counts().active == 2
    scheduler.remove(scheduler.get("p"))
    assert scheduler.pool.counts() == BlockCounts(free=6, active=0, cached=2, quarantined=0)


def test_removed_blocks_stay_out_of_reach_until_settled():
    scheduler = a_scheduler(blocks=2)
    scheduler.add(unlike("d", 7, Work.DECODE))
    scheduler.schedule()
    scheduler.remove(scheduler.get("d"), unsettled=True)
    scheduler.add(unlike("next", 4))
    assert step(scheduler) == []
    assert scheduler.pool.counts().quarantined == 2
    scheduler.pool.settle("d")
    assert step(scheduler) == ["next"]


def test_equal_prompts_share_full_blocks_but_always_compute_their_last_token():
    scheduler = a_scheduler()
    scheduler.add(a_sequence("first", 8))
    step(scheduler)
    scheduler.add(a_sequence("second", 8))
    scheduler.schedule()
    second = scheduler.get("second")
    assert second.cached_tokens == 4, "the second block holds the token whose logits are wanted"
    assert second.blocks[0] == scheduler.get("first").blocks[0]


def test_a_decode_sequence_may_find_its_whole_prompt_in_the_cache():
    scheduler = a_scheduler()
    scheduler.add(a_sequence("first", 8))
    step(scheduler)
    scheduler.add(a_sequence("d", 8, Work.DECODE))
    scheduler.schedule()
    assert scheduler.get("d").cached_tokens == 8


def test_blocks_that_are_still_loading_are_not_shared():
    scheduler = a_scheduler()
    scheduler.add(a_sequence("loading", 8, Work.DECODE))
    scheduler.add(a_sequence("same", 8))
    scheduler.schedule()
    assert scheduler.get("same").cached_tokens == 0


def test_a_key_is_taken_while_its_sequence_lives():
    scheduler = a_scheduler()
    scheduler.add(a_sequence("k", 4))
    with pytest.raises(ValueError, match="k"):
        scheduler.add(a_sequence("k", 4))
    scheduler.remove(scheduler.get("k"))
    scheduler.add(a_sequence("k", 4))


def test_load_says_where_sequences_stand():
    scheduler = a_scheduler(blocks=8, max_tokens=6)
    scheduler.add(unlike("held", 4, Work.PREFILL))
    step(scheduler)
    scheduler.add(unlike("loading", 4, Work.DECODE))
    scheduler.add(unlike("running", 8))
    scheduler.add(unlike("waiting", 20))
    step(scheduler)
    assert scheduler.load() == SchedulerLoad(
        waiting=1,
        loading=1,
        running=1,
        held=1,
        decoding=2,
        waiting_tokens=20 + 2,
        context_tokens=6,
        queued=(QueuedWork(Priority.NORMAL, 2, 20 + 2, 20**2 + 8**2 - 6**2),),
    )


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([9], None),
        ([5], None),
        ([9, 5], FinishReason.STOP),
        ([9, 9, 9], FinishReason.LENGTH),
        ([9, 9, 5], FinishReason.STOP),
    ],
)
def test_why_a_generation_ends(outputs, expected):
    sequence = a_sequence("k", [1, 2, *outputs], ends=[5], min_tokens=2, max_tokens=3)
    sequence.prompt_tokens = 2
    assert sequence.finish_reason(max_model_len=100) is expected


def test_the_context_length_ends_a_generation():
    sequence = a_sequence("k", 10)
    assert sequence.finish_reason(max_model_len=11) is None
    assert sequence.finish_reason(max_model_len=10) is FinishReason.LENGTH
