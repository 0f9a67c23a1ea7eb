"""Receives are posted in the order of the sends, whoever hears of them first."""

import itertools

import pytest
from kv_pair import CONFIG, until
from loopback import Loopback, Note

from pdserve.errors import TransferError
from pdserve.kv.channel import Channel
from pdserve.kv.reorder import Reorder


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3, 4]))[::3])
async def test_jobs_run_in_sequence(order):
    link, notes = Loopback(), []
    link.allow(4)
    channel = Channel("P/D", 1, lambda: link, CONFIG)
    reorder = Reorder(channel, 10)
    for seq in order:
        reorder.post(seq, Note(f"job {seq}", notes))
    await until(lambda: len([n for n in notes if n[0] == "ended"]) == 4)
    begun = [note for note in notes if note[0] == "begun"]
    assert begun == [("begun", f"job {seq}", seq) for seq in (1, 2, 3, 4)]
    channel.close("test over")
    await channel.ended()


async def test_a_gap_ends_the_channel():
    notes = []
    channel = Channel("P/D", 1, Loopback, CONFIG)
    Reorder(channel, 0.02).post(2, Note("early", notes))
    await channel.ended()
    assert "segment 1 was never announced" in str(channel.error)
    assert notes == [("failed", "early", "channel P/D: segment 1 is missing")]


async def test_a_number_comes_once():
    channel = Channel("P/D", 1, Loopback, CONFIG)
    reorder = Reorder(channel, 10)
    reorder.post(1, Note("a", []))
    with pytest.raises(TransferError, match="segment 1 was announced twice"):
        reorder.post(1, Note("b", []))
    channel.close("test over")
    await channel.ended()


async def test_what_waits_for_its_turn_fails_with_the_channel():
    notes = []
    channel = Channel("P/D", 1, Loopback, CONFIG)
    reorder = Reorder(channel, 60)
    reorder.post(2, Note("early", notes))
    channel.close("peer gone")
    await until(lambda: bool(notes))
    assert notes[0][:2] == ("failed", "early")
    reorder.post(1, Note("late", notes))
    assert notes[1][:2] == ("failed", "late")
