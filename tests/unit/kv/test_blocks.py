"""Blocks are never lost, never in two hands by mistake, and found again by content."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pdserve.kv.blocks import BlockCounts, BlockPool

OWNERS = st.sampled_from(["a", "b", "c", "d"])
CHAIN = [bytes([letter]) for letter in range(8)]


class BlockPoolMachine(RuleBasedStateMachine):
    """Compares the pool with a model that keeps one plain record a block."""

    @initialize(size=st.integers(1, 12))
    def build(self, size):
        self.size = size
        self.pool = BlockPool(size)
        self.owners = [set() for _ in range(size)]
        self.holders = [set() for _ in range(size)]  # quarantines
        self.content = {}  # block -> name
        self.idle = []  # cached blocks, next to be evicted first
        self.tables = {}  # owner -> its blocks in order
        self.settling = {}  # owner -> what it has in quarantine

    def in_use(self, block):
        return bool(self.owners[block] or self.holders[block])

    def free(self):
        return [b for b in range(self.size) if not self.in_use(b) and b not in self.content]

    def retire(self, blocks):
        for block in reversed(blocks):
            if block in self.content and not self.in_use(block):
                self.idle.append(block)

    @rule(owner=OWNERS, count=st.integers(0, 8))
    def allocate(self, owner, count):
        free = self.free()
        if count > len(free) + len(self.idle):
            with pytest.raises(ValueError, match=f"{count} blocks wanted"):
                self.pool.allocate(count, owner)
            return
        evicted = self.idle[: max(0, count - len(free))]
        blocks = self.pool.allocate(count, owner)
        assert len(set(blocks)) == count
        assert set(blocks) <= set(free) | set(evicted)
        for block in evicted:
            self.idle.remove(block)
            del self.content[block]
        for block in blocks:
            self.owners[block].add(owner)
        self.tables.setdefault(owner, []).extend(blocks)

    @rule(owner=OWNERS, start=st.integers(0, 7), length=st.integers(0, 8))
    def share_what_matches(self, owner, start, length):
        names = CHAIN[start : start + length]
        by_name = {name: block for block, name in self.content.items()}
        run = []
        for name in names:
            if name not in by_name:
                break
            run.append(by_name[name])
        assert self.pool.match(names) == run
        run = [block for block in run if block not in self.tables.get(owner, [])]
        before, needed = self.pool.available, self.pool.needed(len(run), run)
        self.pool.share(run, owner)
        assert before - self.pool.available == needed
        for block in run:
            self.owners[block].add(owner)
            if block in self.idle:
                self.idle.remove(block)
        self.tables.setdefault(owner, []).extend(run)

    @precondition(lambda self: any(self.tables.values()))
    @rule(data=st.data(), name=st.sampled_from(CHAIN))
    def register(self, data, name):
        owned = sorted({block for table in self.tables.values() for block in table})
        block = data.draw(st.sampled_from(owned))
        self.pool.register(block, name)
        if block not in self.content and name not in self.content.values():
            self.content[block] = name

    @rule(owner=OWNERS)
    def release(self, owner):
        blocks = self.tables.pop(owner, [])
        self.pool.release(blocks, owner)
        for block in reversed(blocks):
            self.owners[block].remove(owner)
            self.retire([block])

    @rule(owner=OWNERS)
    def quarantine(self, owner):
        blocks = self.tables.pop(owner, [])
        self.pool.quarantine(blocks, owner)
        for block in blocks:
            self.owners[block].remove(owner)
            self.holders[block].add(owner)
        held = self.settling.setdefault(owner, [])
        held += [block for block in blocks if block not in held]

    @rule(owner=OWNERS)
    def settle(self, owner):
        self.pool.settle(owner)
        held = self.settling.pop(owner, [])
        for block in reversed(held):
            self.holders[block].remove(owner)
            self.retire([block])

    @invariant()
    def agrees_with_the_model(self):
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        expected = BlockCounts(
            free=len(self.free()),
            active=sum(map(bool, self.owners)),
            cached=len(self.idle),
            quarantined=sum(
                bool(held) and not owned
                for held, owned in zip(self.holders, self.owners, strict=True)
            ),
        )
        assert self.pool.counts() == expected
        assert self.pool.available == expected.free + expected.cached


BlockPoolMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestBlockPoolMachine = BlockPoolMachine.TestCase


def cached_chain(pool, names):
    """Leaves blocks named `names` in the cache."""
    blocks = pool.allocate(len(names), "writer")
    for block, name in zip(blocks, names, strict=True):
        pool.register(block, name)
    pool.release(blocks, "writer")
    return blocks


def test_the_head_of_a_prefix_outlives_its_tail():
    pool = BlockPool(3)
    head, middle, _ = cached_chain(pool, CHAIN[:3])
    pool.allocate(1, "other")
    assert pool.match(CHAIN[:3]) == [head, middle]


def test_the_head_outlives_the_tail_after_a_quarantine_too():
    pool = BlockPool(3)
    blocks = cached_chain(pool, CHAIN[:3])
    pool.share(blocks, "sender")
    pool.quarantine(blocks, "sender")
    pool.settle("sender")
    pool.allocate(1, "other")
    assert pool.match(CHAIN[:3]) == blocks[:2]


def test_the_least_recently_used_prefix_is_evicted_first():
    pool = BlockPool(2)
    (old,) = cached_chain(pool, CHAIN[:1])
    cached_chain(pool, CHAIN[1:2])
    pool.share([old], "reader")
    pool.release([old], "reader")
    pool.allocate(1, "other")
    assert pool.match(CHAIN[:1]) == [old]
    assert pool.match(CHAIN[1:2]) == []


def test_without_a_prefix_cache_nothing_is_kept():
    pool = BlockPool(2, prefix_cache=False)
    cached_chain(pool, CHAIN[:2])
    assert pool.match(CHAIN[:2]) == []
    assert pool.counts() == BlockCounts(free=2, active=0, cached=0, quarantined=0)


def test_quarantined_blocks_wait_for_everyone_who_moves_bytes_in_them():
    pool = BlockPool(1)
    blocks = pool.allocate(1, "a")
    pool.share(blocks, "b")
    pool.quarantine(blocks, "a")
    pool.quarantine(blocks, "b")
    pool.settle("a")
    assert pool.available == 0
    pool.settle("b")
    pool.settle("b")
    assert pool.available == 1


def test_an_owner_that_quarantines_a_block_twice_settles_it_once():
    pool = BlockPool(1)
    for _ in range(2):
        blocks = pool.allocate(1, "a") if pool.available else [0]
        pool.share(blocks, "a")
        pool.quarantine(blocks, "a")
    pool.settle("a")
    pool.check()
    assert pool.available == 1


def test_releasing_what_one_does_not_own_is_an_error():
    pool = BlockPool(2)
    blocks = pool.allocate(1, "a")
    with pytest.raises(KeyError):
        pool.release(blocks, "b")
    pool.check()
