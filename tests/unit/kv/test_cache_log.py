"""Whoever follows the log ends up with exactly the named blocks of the pool."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pdserve.kv.blocks import BlockPool
from pdserve.kv.cache_log import CacheChange, CacheLog, CacheReader, short_name
from pdserve.kv.prefix import HashChain

NAMES = [bytes([letter]) * 16 for letter in range(12)]


def apply(change, known):
    """What a reader knows after `change`."""
    return (set() if change.reset else known) - set(change.removed) | set(change.added)


def caught_up(reader, known):
    while change := reader.read():
        known = apply(change, known)
    return known


class Following(RuleBasedStateMachine):
    """Readers of any pace over a log of any size."""

    @initialize(capacity=st.integers(1, 30), limit=st.integers(1, 6))
    def build(self, capacity, limit):
        self.log = CacheLog(capacity)
        self.limit = limit
        self.present = set()
        self.readers = []

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def begin(self):
        self.readers.append((CacheReader(self.log, self.limit), {-1}))

    @rule(name=st.sampled_from(NAMES))
    def change(self, name):
        if name in self.present:
            self.log.removed(name)
        else:
            self.log.added(name)
        self.present ^= {name}

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def read(self, data):
        index = data.draw(st.integers(0, len(self.readers) - 1))
        reader, known = self.readers[index]
        change = reader.read()
        assert len(change.added) + len(change.removed) <= self.limit
        self.readers[index] = (reader, apply(change, known))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def catch_up(self, data):
        index = data.draw(st.integers(0, len(self.readers) - 1))
        reader, known = self.readers[index]
        known = caught_up(reader, known)
        assert known == {short_name(name) for name in self.present}
        self.readers[index] = (reader, known)


Following.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestFollowing = Following.TestCase


def filled(pool, owner, seed, blocks):
    """Names of `blocks` blocks that `owner` fills with tokens of its own."""
    names = HashChain("model", 2).upto([seed] * 2 * blocks, 2 * blocks)
    for block, name in zip(pool.allocate(blocks, owner), names, strict=True):
        pool.register(block, name)
    return names


def test_a_reader_hears_of_what_a_pool_keeps_and_evicts():
    pool = BlockPool(4)
    reader = CacheReader(pool.log)
    assert reader.read() == CacheChange(reset=True, added=[], removed=[])
    old = filled(pool, "a", 1, 3)
    pool.release(range(3), "a")
    known = caught_up(reader, set())
    assert known == {short_name(name) for name in old}
    filled(pool, "b", 2, 3)  # takes the free block, then evicts the tail of the old prefix
    assert len(caught_up(reader, known) & known) == 1


def test_equal_blocks_are_told_once_and_a_pool_without_a_cache_tells_nothing():
    pool = BlockPool(4)
    reader = CacheReader(pool.log)
    reader.read()
    filled(pool, "a", 1, 2)
    filled(pool, "b", 1, 2)
    change = reader.read()
    assert len(change.added) == 2
    pool.release([2, 3], "b")
    assert not reader.read()

    off = BlockPool(4, prefix_cache=False)
    filled(off, "a", 1, 2)
    change = CacheReader(off.log).read()
    assert (change.reset, change.added) == (True, [])


def test_the_latest_names_are_read_first():
    log = CacheLog(8)
    for name in NAMES[:5]:
        log.added(name)
    reader = CacheReader(log, limit=2)
    pages = [reader.read().added for _ in range(3)]
    assert [*pages[0], *pages[1], *pages[2]] == [short_name(name) for name in NAMES[4::-1]]


def test_a_name_is_the_first_eight_bytes_little_endian():
    assert short_name(bytes([1, 2, *range(14)])) == int.from_bytes(
        bytes([1, 2, *range(6)]), "little"
    )


@pytest.mark.parametrize("capacity", [2, 64])
def test_a_reader_in_another_thread_ends_up_with_the_same_names(capacity):
    log, done = CacheLog(capacity), threading.Event()

    def write():
        for turn in range(200):
            for name in NAMES[: turn % 11 + 1]:
                log.added(name)
            for name in NAMES[: turn % 7 + 1]:
                log.removed(name)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader, known = CacheReader(log, limit=3), set()
    while not done.is_set():
        known = apply(reader.read(), known)
    writer.join()
    assert caught_up(reader, known) == set(log.names()[0])


@given(st.integers(1, 9))
def test_a_reader_that_falls_behind_begins_anew(capacity):
    log = CacheLog(capacity)
    reader = CacheReader(log)
    reader.read()
    for _ in range(capacity + 1):
        log.added(NAMES[0])
    assert reader.read().reset
    assert not reader.read()
