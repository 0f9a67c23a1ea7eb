"""Which requests are turns of one conversation, through drawing, files and operations."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from workloads import blocks_of, workload

from pdserve.errors import ConfigError
from pdserve.workload.conversations import Conversations
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import FixedLengths, IndependentLengths
from pdserve.workload.operations import head, repeat, rotate, without_prefix
from pdserve.workload.read import read_trace
from pdserve.workload.workload import Workload
from pdserve.workload.write import write_trace


def drawn() -> Workload:
    lengths = IndependentLengths(FixedLengths(40), FixedLengths(24))
    return draw_workload(
        WorkloadSpec(60, lengths, conversations=Conversations(turns=3, think_s=5, block_tokens=16))
    )


def turns(made: Workload) -> dict[int, list[int]]:
    assert made.conversation is not None
    found: dict[int, list[int]] = {}
    for index, number in enumerate(made.conversation.tolist()):
        found.setdefault(number, []).append(index)
    return found


def test_each_turn_of_a_drawn_conversation_continues_the_one_before() -> None:
    made = drawn()
    blocks = blocks_of(made.prefix)
    conversations = turns(made)
    assert 1 < len(conversations) < len(made)
    for indices in conversations.values():
        for last, following in pairwise(indices):
            grown = made.prompt_tokens[last] + made.output_tokens[last] + 40
            assert made.prompt_tokens[following] == grown
            full = int(made.prompt_tokens[last]) // 16
            assert blocks[following][:full] == blocks[last][:full]


def test_conversations_are_kept_in_files_and_by_operations(tmp_path: Path) -> None:
    made = drawn()
    assert made.conversation is not None
    path = tmp_path / "made.jsonl"
    write_trace(made, path)
    assert turns(read_trace(path)) == turns(made)
    assert turns(head(made, 20)) == turns(made.take(range(20)))
    assert len(turns(repeat(made, 120))) == 2 * len(turns(made))
    assert sorted(map(len, turns(rotate(made, 0.5)).values())) == sorted(
        map(len, turns(made).values())
    )
    assert without_prefix(made).conversation is None


def test_lines_may_belong_to_no_conversation(tmp_path: Path) -> None:
    made = replace(workload([0, 1, 2]), conversation=np.array([-1, 7, -1]))
    path = tmp_path / "made.jsonl"
    write_trace(made, path)
    assert path.read_text().count("conversation") == 1
    read = read_trace(path).conversation
    assert read is not None
    assert read.tolist() == [-1, 7, -1]
    again = repeat(made, 6).conversation
    assert again is not None
    assert again.tolist() == [-1, 7, -1, -1, 15, -1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("-2", "conversation is -2; it must be at least 0"),
        ('"x"', "conversation is 'x'; it must be a whole number"),
    ],
)
def test_a_conversation_is_a_whole_number(tmp_path: Path, value: str, text: str) -> None:
    path = tmp_path / "made.jsonl"
    path.write_text(
        f'{{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1, "conversation": {value}}}\n'
    )
    with pytest.raises(ConfigError, match=text):
        read_trace(path)
