"""A channel runs jobs in order, two at a time, until its first error."""

import threading
from dataclasses import replace

import pytest
from kv_pair import CONFIG, until
from loopback import Loopback, Note

from pdserve.errors import TransferError
from pdserve.kv.channel import Channel


def make_channel(link, **changes):
    return Channel("P/D", 1, lambda: link, replace(CONFIG, **changes))


async def test_one_job_moves_while_the_next_begins():
    link, notes = Loopback(), []
    channel = make_channel(link)
    for name in "abc":
        channel.submit(Note(name, notes))
    await until(lambda: len(notes) == 2)
    assert notes == [("begun", "a", 1), ("begun", "b", 2)]
    link.allow(3)
    await until(lambda: len(notes) == 6)
    assert notes[2:] == [("ended", "a"), ("begun", "c", 3), ("ended", "b"), ("ended", "c")]
    channel.close("test over")
    await channel.ended()
    assert link.closed.is_set()


async def test_a_job_that_is_not_wanted_takes_no_number():
    link, notes = Loopback(), []
    channel = make_channel(link)
    channel.submit(Note("a", notes, wanted=False))
    channel.submit(Note("b", notes))
    link.allow(1)
    await until(lambda: ("ended", "b") in notes)
    assert notes == [("skipped", "a"), ("begun", "b", 1), ("ended", "b")]
    channel.close("test over")
    await channel.ended()


async def test_the_first_error_ends_the_channel_and_every_job():
    link, notes = Loopback(broken=2), []
    channel = make_channel(link)
    for name in "abcd":
        channel.submit(Note(name, notes))
    link.allow(4)
    await channel.ended()
    failed = {note[1]: note[2] for note in notes if note[0] == "failed"}
    assert failed == dict.fromkeys("bcd", "the wire broke")
    assert ("ended", "a") in notes
    assert str(channel.error) == "the wire broke"
    assert link.closed.is_set()
    with pytest.raises(TransferError, match="has ended: the wire broke"):
        channel.submit(Note("e", notes))


async def test_an_error_of_a_job_itself_ends_the_channel():
    class Wrong(Note):
        def begin(self, link, seq):
            raise IndexError("block 99")

    notes = []
    channel = make_channel(Loopback())
    channel.submit(Wrong("a", notes))
    await channel.ended()
    assert "block 99" in str(channel.error)
    assert [note[:2] for note in notes] == [("failed", "a")]


async def test_without_a_link_every_job_fails():
    def connect():
        raise TransferError("nobody came")

    notes, gate = [], threading.Event()

    def connect_late():
        gate.wait(10)
        connect()

    channel = Channel("P/D", 1, connect_late, CONFIG)
    channel.submit(Note("a", notes))
    gate.set()
    await channel.ended()
    assert notes == [("failed", "a", "nobody came")]


async def test_the_queue_is_bounded():
    notes = []
    channel = make_channel(Loopback(), max_queue=3)
    for name in "ab":
        channel.submit(Note(name, notes))
    await until(lambda: len(notes) == 2)  # both run, and wait for nobody to come
    for name in "cde":
        channel.submit(Note(name, notes))
    with pytest.raises(TransferError, match="3 segments waiting"):
        channel.submit(Note("f", notes))
    channel.close("test over")


async def test_an_unused_channel_ends_and_a_held_one_does_not():
    unused = make_channel(Loopback(), channel_idle_s=0.02)
    held = make_channel(Loopback(), channel_idle_s=0.02)
    assert held.acquire()
    await unused.ended()
    assert "idle" in str(unused.error)
    assert not unused.acquire()
    assert held.error is None
    held.release()
    await held.ended()
