"""The names under which instances report the KV blocks of one request."""

from collections.abc import Sequence

from pdserve.kv.layout import KvLayout
from pdserve.kv.prefix import HashChain

_NAME_BYTES = 8


class BlockChain:
    """Names of the full blocks of a token sequence that grows at its end, computed once each."""

    def __init__(self) -> None:
        self._chains: dict[tuple[str, int], tuple[HashChain, list[int]]] = {}

    def names(self, tokens: Sequence[int], layout: KvLayout) -> Sequence[int]:
        """The first eight bytes, little-endian, of the hash of each full block in `layout`.

        `tokens` are those of an earlier call, with more at the end or not.
        """
        key = layout.fingerprint, layout.block_size
        if key not in self._chains:
            self._chains[key] = HashChain(*key), []
        chain, names = self._chains[key]
        for name in chain.upto(tokens, len(tokens))[len(names) :]:
            names.append(int.from_bytes(name[:_NAME_BYTES], "little"))
        return names
