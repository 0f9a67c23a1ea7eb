"""Who may use which KV block: allocation, prefix cache and quarantine, over plain integers."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pdserve.kv.cache_log import MIN_LOG, CacheLog
from pdserve.kv.prefix import BlockHash


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """Blocks by state; the four add up to the size of the pool."""

    free: int
    active: int
    cached: int
    quarantined: int


class BlockPool:
    """Allocates KV blocks to owners and keeps the content of full ones for later prefixes.

    A block is *free*; *active*, owned by one or more sequences; *cached*, owned by none but with
    known content, so that it can be shared again or evicted, least recently used first; or
    *quarantined*, owned by none while bytes of an aborted transfer may still move: it is not
    reused until its quarantine is settled. One thread uses a pool; other threads may follow `log`.
    """

    def __init__(self, num_blocks: int, *, prefix_cache: bool = True) -> None:
        self.num_blocks = num_blocks
        self.log = CacheLog(max(MIN_LOG, num_blocks))
        self._prefix_cache = prefix_cache
        self._free = deque(range(num_blocks))
        self._owners: list[set[str]] = [set() for _ in range(num_blocks)]
        self._hash_of: dict[int, BlockHash] = {}
        self._by_hash: dict[BlockHash, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._quarantines: dict[str, dict[int, None]] = {}  # owner -> its blocks, in order
        self._holds: dict[int, int] = {}  # block -> quarantines that hold it

    @property
    def available(self) -> int:
        """Blocks that `allocate` can give."""
        return len(self._free) + len(self._cached)

    def counts(self) -> BlockCounts:
        """Blocks by state."""
        quarantined = sum(1 for block in self._holds if not self._owners[block])
        free, cached = len(self._free), len(self._cached)
        return BlockCounts(
            free=free,
            active=self.num_blocks - free - cached - quarantined,
            cached=cached,
            quarantined=quarantined,
        )

    def match(self, hashes: Iterable[BlockHash]) -> list[int]:
        """Blocks that hold the longest known run of leading `hashes`; changes nothing."""
        blocks = []
        for name in hashes:
            block = self._by_hash.get(name)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def needed(self, total: int, shared: Sequence[int]) -> int:
        """How much `available` falls when an owner takes `total` blocks, `shared` among them."""
        return total - len(shared) + sum(1 for block in shared if block in self._cached)

    def share(self, blocks: Iterable[int], owner: str) -> None:
        """Makes `owner` a further owner of blocks that `match` returned."""
        for block in blocks:
            self._cached.pop(block, None)
            self._owners[block].add(owner)

    def allocate(self, count: int, owner: str) -> list[int]:
        """`count` blocks of unknown content for `owner`; evicts cached ones when it must.

        Raises `ValueError` when fewer are available; nothing is allocated then.
        """
        if count > self.available:
            raise ValueError(f"{count} blocks wanted, {self.available} available")
        blocks = []
        for _ in range(count):
            block = self._free.popleft() if self._free else self._evict()
            self._owners[block].add(owner)
            blocks.append(block)
        return blocks

    def register(self, block: int, name: BlockHash) -> None:
        """States that an active block is full and what it holds; the first of equals is kept."""
        if self._prefix_cache and name not in self._by_hash and block not in self._hash_of:
            self._hash_of[block] = name
            self._by_hash[name] = block
            self.log.added(name)

    def release(self, blocks: Iterable[int], owner: str) -> None:
        """Ends `owner`'s ownership; blocks without owners become cached or free.

        Raises `KeyError` when `owner` does not own one of them.
        """
        # The tail of a prefix goes first: a head without its tail is useful, not the reverse.
        for block in reversed(list(blocks)):
            self._owners[block].remove(owner)
            self._retire(block)

    def quarantine(self, blocks: Iterable[int], owner: str) -> None:
        """Releases `blocks`, but keeps them from reuse until `settle(owner)`."""
        left = list(blocks)
        held = self._quarantines.setdefault(owner, {})
        for block in left:
            if block not in held:
                held[block] = None
                self._holds[block] = self._holds.get(block, 0) + 1
        self.release(left, owner)

    def settle(self, owner: str) -> None:
        """Ends the quarantine of what `owner` had: nothing moves in it any more. Idempotent."""
        for block in reversed(self._quarantines.pop(owner, {})):
            self._holds[block] -= 1
            if not self._holds[block]:
                del self._holds[block]
            self._retire(block)

    def check(self) -> None:
        """Raises `AssertionError` unless every block is in exactly one state."""
        free, cached = set(self._free), set(self._cached)
        active = {block for block, owners in enumerate(self._owners) if owners}
        quarantined = {block for block in self._holds if not self._owners[block]}
        states = (free, cached, active, quarantined)
        assert len(self._free) == len(free), "a block is free twice"
        assert sum(map(len, states)) == self.num_blocks, "a block is in two states, or in none"
        assert set().union(*states) == set(range(self.num_blocks)), "a block is lost"
        assert all(self._by_hash[name] == block for block, name in self._hash_of.items())
        assert cached <= set(self._hash_of), "a cached block has no content"

    def _retire(self, block: int) -> None:
        if self._owners[block] or block in self._holds:
            return
        if block in self._hash_of:
            self._cached[block] = None
        else:
            self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        name = self._hash_of.pop(block)
        del self._by_hash[name]
        self.log.removed(name)
        return block
