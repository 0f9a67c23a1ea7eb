"""A step keeps its budget, decodes come first, and prefills share what is left in order."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pdserve.scheduling.batching import Chunk, TokenBudget


@dataclass(frozen=True)
class Job:
    name: int
    uncomputed: int


JOBS = st.lists(st.integers(1, 20), max_size=12).map(
    lambda sizes: [Job(name, size) for name, size in enumerate(sizes)]
)


def test_prefills_get_what_decodes_leave():
    jobs = [Job(0, 10), Job(1, 1), Job(2, 10), Job(3, 1)]
    chunks = TokenBudget(max_tokens=15, max_seqs=8).fill(jobs)
    assert [(c.sequence.name, c.tokens) for c in chunks] == [(1, 1), (3, 1), (0, 10), (2, 3)]


def test_a_long_prompt_is_cut_at_the_budget():
    assert TokenBudget(4, 8).fill([Job(0, 10)]) == [Chunk(Job(0, 10), 4)]


@given(JOBS, st.integers(1, 30), st.integers(1, 12))
def test_any_step_stays_within_its_bounds_and_uses_them(jobs, max_tokens, max_seqs):
    budget = TokenBudget(max_tokens, max_seqs)
    chunks = budget.fill(jobs)
    used = sum(chunk.tokens for chunk in chunks)
    wanted = sum(job.uncomputed for job in jobs[:max_seqs])
    assert used == min(wanted, max_tokens)
    assert budget.left(chunks) == max_tokens - used
    assert len({chunk.sequence for chunk in chunks}) == len(chunks) <= max_seqs
    assert all(1 <= chunk.tokens <= chunk.sequence.uncomputed for chunk in chunks)


@given(JOBS, st.integers(1, 30))
def test_at_most_one_prefill_is_cut_and_those_behind_it_wait(jobs, max_tokens):
    chunks = TokenBudget(max_tokens, len(jobs) or 1).fill(jobs)
    prefills = [chunk for chunk in chunks if chunk.sequence.uncomputed > 1]
    whole = [chunk.tokens == chunk.sequence.uncomputed for chunk in prefills]
    assert all(whole[:-1])
    expected = [job for job in jobs if job.uncomputed > 1][: len(prefills)]
    assert [chunk.sequence for chunk in prefills] == expected
