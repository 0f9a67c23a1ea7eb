"""What prompts are made of: numbers that a seed, a block and a place in it decide.

No state is kept and no order matters, so any part of any prompt can be made when it is needed, and
prompts that share a block are alike in it.
"""

import numpy as np
from numpy.typing import NDArray

from pdserve.workload.workload import Ints, Workload

Hashes = NDArray[np.uint64]

# Keys of single requests, where there are no blocks, must not meet those of blocks.
_OWN = 1 << 40


class Contents:
    """The contents of a workload's prompts; another `seed`, and all of them are others."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._seed = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
        self._prefix = workload.prefix

    def numbers(self, index: int, places: Ints) -> Hashes:
        """A random number for each of the `places` (tokens from 0) in the prompt of a request."""
        keys = np.full(len(places), _OWN + index, dtype=np.uint64)
        offsets = places.astype(np.uint64)
        if (prefix := self._prefix) is not None:
            begin, end = prefix.offsets[index], prefix.offsets[index + 1]
            block = begin + places // prefix.block_tokens
            inside = block < end
            keys[inside] = prefix.ids[block[inside]]
            offsets[inside] = places[inside] % prefix.block_tokens
        return _mixed(_mixed(keys + self._seed) + offsets)


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at each of `values`."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
