"""How an instance lays out KV over its ranks, and which part of it moves between two of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pdserve.errors import IncompatibleLayoutError

_ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_MUST_AGREE = ("protocol", "fingerprint", "dtype", "layers", "kv_heads", "head_dim")

# Of the transfer between two instances: one more whenever calls, segments, order or digests change
# so that an earlier version of pdserve could not take part.
TRANSFER_PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How an instance stores KV: `layers` and `kv_heads` are the whole model's, over all ranks.

    A pipeline stage (PP) holds a contiguous range of layers; where they do not divide evenly, the
    first stages hold one more. Within a stage a rank (TP) holds a contiguous range of KV heads, cut
    the same way; with more ranks than heads, each rank holds one and neighbours hold copies.
    Rank = stage × tp + position in the stage. `protocol` is how the instance hands KV over, 0 where
    it is too old to say. Raises `IncompatibleLayoutError` for a layout that no instance can have.
    """

    fingerprint: str
    dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    block_size: int
    tp: int = 1
    pp: int = 1
    protocol: int = TRANSFER_PROTOCOL

    def __post_init__(self) -> None:
        if self.dtype not in _ELEMENT_BYTES:
            known = ", ".join(_ELEMENT_BYTES)
            raise IncompatibleLayoutError(
                f"KV dtype is {self.dtype!r}; it must be one of {known}", field="dtype", limit=known
            )
        for name in ("layers", "kv_heads", "head_dim", "block_size", "tp", "pp"):
            if getattr(self, name) < 1:
                raise IncompatibleLayoutError(
                    f"KV layout: {name} is {getattr(self, name)}; it must be at least 1",
                    field=name,
                    limit="1",
                )
        if self.pp > self.layers:
            raise IncompatibleLayoutError(
                f"KV layout: pp is {self.pp}, more than the {self.layers} layers",
                field="pp",
                limit=str(self.layers),
            )

    @property
    def ranks(self) -> int:
        """Ranks of one instance."""
        return self.tp * self.pp

    @property
    def cell_bytes(self) -> int:
        """Bytes of key and value of one token in one head of one layer."""
        return 2 * self.head_dim * _ELEMENT_BYTES[self.dtype]

    @property
    def token_bytes(self) -> int:
        """Bytes of KV of one token, over all layers and heads, copies not counted."""
        return self.layers * self.kv_heads * self.cell_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, over all layers and heads, copies not counted."""
        return self.block_size * self.token_bytes

    def shard(self, rank: int) -> "KvLayout":
        """The layout of what `rank` holds, as a single-rank layout: the shape of its pool."""
        part = rank_part(self, rank)
        return replace(self, layers=len(part.layers), kv_heads=len(part.heads), tp=1, pp=1)


@dataclass(frozen=True, slots=True)
class KvPart:
    """A rectangle of KV, for all tokens: contiguous layers times contiguous KV heads."""

    layers: range
    heads: range

    @property
    def cells(self) -> Iterator[tuple[int, int]]:
        """Every (layer, head) in it."""
        return ((layer, head) for layer in self.layers for head in self.heads)

    def __bool__(self) -> bool:
        return len(self.layers) > 0 and len(self.heads) > 0


def rank_part(layout: KvLayout, rank: int) -> KvPart:
    """What `rank` holds. Raises `IncompatibleLayoutError` when the layout has no such rank."""
    if not 0 <= rank < layout.ranks:
        raise IncompatibleLayoutError(
            f"KV layout: rank is {rank}; with tp {layout.tp} and pp {layout.pp} it must lie in "
            f"[0, {layout.ranks - 1}]",
            field="rank",
            limit=str(layout.ranks - 1),
        )
    stage, position = divmod(rank, layout.tp)
    return KvPart(_split(layout.layers, layout.pp, stage), _heads(layout, position))


def check_compatible(src: KvLayout, dst: KvLayout) -> None:
    """Raises `IncompatibleLayoutError`, naming both values, unless `src` can hand KV to `dst`.

    Block size, TP and PP may differ.
    """
    for name in _MUST_AGREE:
        ours, theirs = getattr(src, name), getattr(dst, name)
        if ours != theirs:
            hint = ": their versions of pdserve do not fit together" * (name == "protocol")
            raise IncompatibleLayoutError(
                f"KV layouts differ: {name} is {ours!r} at prefill and {theirs!r} at decode{hint}",
                field=name,
                limit=str(ours),
            )


def intersect(src: KvLayout, src_rank: int, dst: KvLayout, dst_rank: int) -> KvPart | None:
    """What both ranks hold; None when they have nothing in common."""
    ours, theirs = rank_part(src, src_rank), rank_part(dst, dst_rank)
    part = KvPart(_overlap(ours.layers, theirs.layers), _overlap(ours.heads, theirs.heads))
    return part or None


def pull_plan(src: KvLayout, dst: KvLayout, dst_rank: int) -> dict[int, KvPart]:
    """Which part `dst_rank` pulls from which rank of `src`.

    Every (layer, head) that `dst_rank` holds is in exactly one part. Where source ranks hold copies
    of a head, the destination ranks take turns among them.
    """
    position = dst_rank % dst.tp
    plan = {}
    for src_rank in range(src.ranks):
        part = intersect(src, src_rank, dst, dst_rank)
        if part and src_rank % src.tp in _chosen_copies(src, part.heads, position):
            plan[src_rank] = part
    return plan


def pullers(src: KvLayout, src_rank: int, dst: KvLayout) -> frozenset[int]:
    """The ranks of `dst` that pull something from `src_rank`."""
    return frozenset(rank for rank in range(dst.ranks) if src_rank in pull_plan(src, dst, rank))


def _chosen_copies(layout: KvLayout, heads: range, turn: int) -> set[int]:
    """For each of `heads`, the position in a stage that is asked for it on this turn."""
    chosen = set()
    for head in heads:
        holders = [p for p in range(layout.tp) if head in _heads(layout, p)]
        chosen.add(holders[turn % len(holders)])
    return chosen


def _heads(layout: KvLayout, position: int) -> range:
    if layout.tp <= layout.kv_heads:
        return _split(layout.kv_heads, layout.tp, position)
    head = position * layout.kv_heads // layout.tp
    return range(head, head + 1)


def _split(total: int, parts: int, index: int) -> range:
    """The `index`-th of `parts` contiguous ranges; the first ones take the remainder."""
    size, remainder = divmod(total, parts)
    begin = index * size + min(index, remainder)
    return range(begin, begin + size + (index < remainder))


def _overlap(a: range, b: range) -> range:
    begin = max(a.start, b.start)
    return range(begin, max(begin, min(a.stop, b.stop)))
