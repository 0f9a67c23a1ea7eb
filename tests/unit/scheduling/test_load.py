"""The load that is reported is what there is, by priority."""

from hypothesis import given
from hypothesis import strategies as st

from pdserve.kv.blocks import BlockPool
from pdserve.kv.prefix import HashChain
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import TokenBudget
from pdserve.scheduling.load import PrefillWork, QueuedWork
from pdserve.scheduling.scheduler import Scheduler
from pdserve.scheduling.sequence import Sequence, State, Work
from pdserve.scheduling.urgency import Priority, Urgency

BLOCK = 4
KINDS = st.tuples(
    st.sampled_from(Priority), st.integers(1, 30), st.sampled_from(Work), st.sampled_from([0, 1, 2])
)


def a_sequence(key, priority, tokens, work, limit):
    return Sequence(
        key=key,
        tokens=[int(key)] * tokens,
        prompt_tokens=tokens,
        sampling=SamplingParams(max_tokens=4),
        end_token_ids=frozenset(),
        work=work,
        chain=HashChain("model", BLOCK),
        urgency=Urgency(priority),
        tpot_limit_s=float(limit),
    )


def counted(sequences):
    """The work of the sequences, added up from nothing."""
    unfinished = [
        each
        for each in sequences
        if (each.state is State.WAITING and each.work is not Work.DECODE)
        or (each.state is State.RUNNING and each.uncomputed > 1)
    ]
    work = []
    for priority in sorted(Priority, reverse=True):
        of_it = [each for each in unfinished if each.urgency.priority is priority]
        if of_it:
            squares = sum(len(each.tokens) ** 2 - each.computed**2 for each in of_it)
            work.append(
                QueuedWork(priority, len(of_it), sum(each.uncomputed for each in of_it), squares)
            )
    return tuple(work)


@given(st.lists(KINDS, max_size=12), st.integers(1, 20), st.integers(8, 20), st.data())
def test_whatever_has_happened_the_load_is_what_is_there(kinds, budget, blocks, data):
    scheduler = Scheduler(BlockPool(blocks), BLOCK, TokenBudget(budget, 5), blocks * BLOCK)
    live = {}
    for number, kind in enumerate(kinds):
        live[str(number)] = a_sequence(str(number), *kind)
        scheduler.add(live[str(number)])
    for _ in range(data.draw(st.integers(0, 12))):
        for chunk in scheduler.schedule().chunks:
            whole = chunk.tokens == chunk.sequence.uncomputed
            scheduler.commit(chunk, 99 if whole else None)
        for sequence in [each for each in live.values() if each.state is State.LOADING]:
            if data.draw(st.booleans()):
                scheduler.loaded(sequence, 99)
        if live and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(sorted(live)))
            if scheduler.get(key):
                scheduler.remove(live[key])
        live = {key: each for key, each in live.items() if scheduler.get(key)}
        load = scheduler.load()
        states = [each.state for each in live.values()]
        assert (load.waiting, load.loading, load.running, load.held) == tuple(
            states.count(state)
            for state in (State.WAITING, State.LOADING, State.RUNNING, State.HELD)
        )
        assert load.queued == counted(live.values())
        assert load.waiting_tokens == sum(work.tokens for work in load.queued)
        limits = [each.tpot_limit_s for each in live.values() if each.tpot_limit_s]
        assert load.tpot_limit_s == min(limits, default=0.0)
        assert load.decoding == sum(
            each.state is State.LOADING
            or (each.state is State.RUNNING and each.work is not Work.PREFILL)
            for each in live.values()
        )


def test_what_is_to_be_pulled_is_no_prefill_work():
    scheduler = Scheduler(BlockPool(8), BLOCK, TokenBudget(8, 4), 32)
    scheduler.add(a_sequence("1", Priority.NORMAL, 9, Work.DECODE, 0))
    load = scheduler.load()
    assert (load.waiting, load.waiting_tokens, load.queued) == (1, 0, ())


@given(st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 99), st.integers(1, 99))))
def test_work_that_is_taken_back_leaves_nothing(entries):
    work = PrefillWork()
    for entry in entries:
        work.add(*entry)
    for entry in entries:
        work.remove(*entry)
    assert work.queued() == ()
