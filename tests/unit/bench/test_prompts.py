"""Prompts are as long as the workload says, share what it says, and contain what was said."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import workload

from pdserve.bench.prompts import Conversations, IdPrompts, TextPrompts, Turn
from pdserve.bench.target import IdPrompt, TextPrompt, TextScale, TokenRange
from pdserve.bench.timeline import Timeline
from pdserve.workload.conversations import Conversations as Drawn
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import FixedLengths, IndependentLengths
from pdserve.workload.workload import Workload

RANGE = TokenRange(100, 900)


def ids(made: Workload, seed: int = 0) -> list[list[int]]:
    prompts = IdPrompts(made, seed, RANGE)
    return [list(prompts.build(index, None).ids) for index in range(len(made))]


def answer(tokens: int, prompt_tokens: int | None = None, text: str = "") -> Timeline:
    timeline = Timeline(keep=True)
    timeline.chunk(0.0, text, tokens, range(tokens))
    if prompt_tokens is not None:
        timeline.usage(prompt_tokens, tokens, None)
    return timeline


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.lists(st.integers(0, 5), max_size=10)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 2**40),
)
def test_prompts_share_the_blocks_that_they_have_in_common(
    requests: list[tuple[int, list[int]]], seed: int
) -> None:
    sizes = [size for size, _ in requests]
    blocks = [given_ids[: -(-size // 4)] for size, given_ids in requests]
    made = workload([0.0] * len(sizes), sizes, blocks=blocks)
    prompts = ids(made, seed)
    assert [len(prompt) for prompt in prompts] == sizes
    assert all(RANGE.low <= each < RANGE.high for prompt in prompts for each in prompt)
    content: dict[int, list[int]] = {}
    for prompt, own in zip(prompts, blocks, strict=True):
        for place, block in enumerate(own):
            part = prompt[place * 4 : place * 4 + 4]
            known = content.setdefault(block, part)
            assert part[: len(known)] == known[: len(part)]
    assert ids(made, seed) == prompts


def test_prompts_without_blocks_share_nothing_and_seeds_change_all() -> None:
    made = workload([0.0] * 50, 64)
    prompts = ids(made)
    assert len({tuple(prompt[:4]) for prompt in prompts}) == 50
    assert not {tuple(each) for each in ids(made, 1)} & {tuple(each) for each in prompts}
    counts = np.bincount(np.array(prompts).ravel(), minlength=900)[100:]
    assert counts.min() >= 0
    assert counts.max() < 20  # 3,200 draws of 800 ids: 4 each


def test_a_turn_contains_prompts_and_answers_before_it() -> None:
    spec = WorkloadSpec(
        40,
        IndependentLengths(FixedLengths(20), FixedLengths(6)),
        conversations=Drawn(turns=4, think_s=4, system_tokens=32, block_tokens=16),
    )
    made = draw_workload(spec)
    assert made.conversation is not None
    prompts, conversations = IdPrompts(made, 3, RANGE), Conversations(made)
    asked: dict[int, list[IdPrompt]] = {}
    for index in range(len(made)):
        prompt = prompts.build(index, conversations.last(index))
        assert len(prompt.ids) == made.prompt_tokens[index]
        turn = conversations.begin(index, prompt, len(prompt.ids))
        assert turn is not None
        turn.answer = answer(6)
        asked.setdefault(int(made.conversation[index]), []).append(prompt)
    assert max(map(len, asked.values())) > 2
    for turns in asked.values():
        for before, after in pairwise(turns):
            history = [*before.ids, *range(6)]
            assert list(after.ids[: len(history)]) == history
            assert len(after.ids) == len(history) + 20
    system = {tuple(turns[0].ids[:32]) for turns in asked.values()}
    assert len(system) == 1


def test_an_answer_that_is_not_there_yet_is_made_up_for() -> None:
    made = workload([0.0, 1.0], [10, 30], conversation=[0, 0])
    prompts = IdPrompts(made, 0, RANGE)
    first = prompts.build(0, None)
    late = prompts.build(1, Turn(first, 10))
    assert len(late.ids) == 30
    assert list(late.ids[:10]) == list(first.ids)


def test_a_turn_that_is_shorter_than_its_history_begins_anew() -> None:
    made = workload([0.0, 1.0], [30, 10], conversation=[0, 0])
    prompts = IdPrompts(made, 0, RANGE)
    first = prompts.build(0, None)
    assert len(prompts.build(1, Turn(first, 30)).ids) == 10


@pytest.mark.parametrize(
    ("scale", "tokens", "words"),
    [
        (TextScale(), 50, 50),
        (TextScale(frame=10, per_word=1.0), 50, 40),
        (TextScale(frame=0, per_word=5.0), 50, 10),
        (TextScale(frame=60), 50, 1),
    ],
)
def test_texts_have_as_many_words_as_make_the_tokens(
    scale: TextScale, tokens: int, words: int
) -> None:
    prompt = TextPrompts(workload([0.0], tokens), 0, scale).build(0, None)
    assert len(prompt.turns) == 1
    assert len(prompt.turns[0].split()) == words


def test_texts_share_what_blocks_say() -> None:
    made = workload([0.0] * 2, [40, 60], blocks=[[0, 1, 2], [0, 1, 9]], block_tokens=16)
    prompts = TextPrompts(made, 0, TextScale())
    one, other = (prompts.build(index, None).turns[0].split() for index in range(2))
    assert one[:32] == other[:32]
    assert one[32:36] != other[32:36]


def test_turns_of_text_go_on_from_the_answer_as_the_server_counted_it() -> None:
    made = workload([0.0, 1.0], [20, 60], conversation=[0, 0])
    prompts = TextPrompts(made, 0, TextScale(frame=3))
    first = prompts.build(0, None)
    turn = Turn(first, 20)
    turn.answer = answer(8, prompt_tokens=22, text=" said so")
    second = prompts.build(1, turn)
    assert second.turns[:2] == (first.turns[0], " said so")
    assert len(second.turns[2].split()) == 60 - 22 - 8
    unanswered = prompts.build(1, Turn(first, 20))
    assert isinstance(unanswered, TextPrompt)
    assert unanswered.turns[0].startswith(first.turns[0])
    assert len(unanswered.turns[0].split()) == 17 + 40
