"""Names of KV blocks by content: equal hashes mean equal tokens at equal positions."""

import hashlib
from array import array
from collections.abc import Sequence

BlockHash = bytes


def block_hash(parent: BlockHash, tokens: Sequence[int]) -> BlockHash:
    """Hash of a full block of `tokens` that follows the block `parent`; 16 bytes.

    The chain makes it a name of the whole prefix. The first block's parent is the model's
    fingerprint, so that hashes of different models never meet.
    """
    return hashlib.blake2b(parent + array("I", tokens).tobytes(), digest_size=16).digest()


class HashChain:
    """The block hashes of one growing token sequence, computed once each."""

    def __init__(self, root: str, block_size: int) -> None:
        self._root = root.encode()
        self._block_size = block_size
        self._hashes: list[BlockHash] = []

    def upto(self, tokens: Sequence[int], count: int) -> list[BlockHash]:
        """Hashes of the full blocks among the first `count` of `tokens`."""
        full = count // self._block_size
        while len(self._hashes) < full:
            begin = len(self._hashes) * self._block_size
            parent = self._hashes[-1] if self._hashes else self._root
            self._hashes.append(block_hash(parent, tokens[begin : begin + self._block_size]))
        return self._hashes[:full]
