"""One step's work as tensors: the tokens of many sequences, ragged, with where their KV lives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pdserve.engine.grouping import Extent, group_extents


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence's part of a step.

    `token_ids` are to be processed; `start` is the position of the first, which is the number of
    tokens whose KV is there already. `blocks` is the block table; it covers `start` and these
    tokens. `sample` asks for the logits after the last token.
    """

    token_ids: Sequence[int]
    start: int
    blocks: Sequence[int]
    sample: bool

    @property
    def end(self) -> int:
        """Tokens of the sequence that have KV once the step is done."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Padding:
    """How rows of unequal spans become a rectangle [spans, queries] and come back.

    `spread` [spans * queries] names the row of each cell (a span's last row fills its rest);
    `gather` [rows] names the cell of each row. Rows count from the group's first.
    """

    spread: torch.Tensor
    gather: torch.Tensor


@dataclass(frozen=True, slots=True)
class FreshGroup:
    """Spans that start at position 0: they see nothing but their own tokens."""

    rows: slice
    spans: int
    queries: int
    padding: Padding | None


@dataclass(frozen=True, slots=True)
class PagedGroup:
    """Spans that also see KV of earlier steps, decode steps among them.

    `table` [spans * blocks] lists their blocks, padded with each span's own first block.
    """

    rows: slice
    spans: int
    queries: int
    padding: Padding | None
    table: torch.Tensor


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """The tensors of one step, int64, computed once for all layers.

    Rows are the tokens of all spans, group after group, in no order that a caller may rely on.
    `token_ids`, `positions` and `slots` (block * block_size + offset: where the token's KV goes)
    are [tokens]; `sampled` [sampled spans] has the row of each wanted logit, in the order of the
    spans.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    sampled: torch.Tensor
    paged: tuple[PagedGroup, ...]
    fresh: tuple[FreshGroup, ...]

    @classmethod
    def build(cls, spans: Sequence[Span], block_size: int, device: torch.device) -> "RaggedBatch":
        """Lays out `spans`, at least one, for a pool with blocks of `block_size` tokens.

        Raises `ValueError` for a span without tokens or with too few blocks.
        """
        for span in spans:
            _check(span, block_size)
        builder = _Builder(spans, block_size, device)
        paged = [index for index, span in enumerate(spans) if span.start > 0]
        fresh = [index for index, span in enumerate(spans) if span.start == 0]
        paged_groups = tuple(map(builder.add_paged, _grouped(spans, paged)))
        fresh_groups = tuple(map(builder.add_fresh, _grouped(spans, fresh)))
        return cls(
            token_ids=builder.indices(builder.token_ids),
            positions=builder.indices(builder.positions),
            slots=builder.indices(builder.slots),
            sampled=builder.indices(builder.sampled_rows()),
            paged=paged_groups,
            fresh=fresh_groups,
        )


def _check(span: Span, block_size: int) -> None:
    if not span.token_ids or span.start < 0:
        raise ValueError(f"span of {len(span.token_ids)} tokens from position {span.start}")
    if len(span.blocks) * block_size < span.end:
        raise ValueError(
            f"{len(span.blocks)} blocks of {block_size} tokens cannot hold {span.end} tokens"
        )


def _grouped(spans: Sequence[Span], members: Sequence[int]) -> list[list[int]]:
    """Indices of spans, from `members`, that are attended together."""
    extents = [Extent(len(spans[i].token_ids), spans[i].end) for i in members]
    return [[members[i] for i in group] for group in group_extents(extents)]


class _Builder:
    """Collects the rows of spans, group by group; a group is a list of indices of spans."""

    def __init__(self, spans: Sequence[Span], block_size: int, device: torch.device) -> None:
        self._spans = spans
        self._block_size = block_size
        self._device = device
        self._last_rows = [0] * len(spans)
        self.token_ids: list[int] = []
        self.positions: list[int] = []
        self.slots: list[int] = []

    def indices(self, values: Sequence[int]) -> torch.Tensor:
        """`values` on the device; the copy does not wait."""
        pin = self._device.type == "cuda"
        tensor = torch.tensor(values, dtype=torch.int64, pin_memory=pin)
        return tensor.to(self._device, non_blocking=True)

    def sampled_rows(self) -> list[int]:
        """The last row of every span that wants logits, in the order of the spans."""
        rows = zip(self._spans, self._last_rows, strict=True)
        return [row for span, row in rows if span.sample]

    def add_fresh(self, group: Sequence[int]) -> FreshGroup:
        """Adds the rows of spans that start at position 0."""
        lengths = [len(self._spans[i].token_ids) for i in group]
        return FreshGroup(self._add_rows(group), len(group), max(lengths), self._padding(lengths))

    def add_paged(self, group: Sequence[int]) -> PagedGroup:
        """Adds the rows of spans that go on from KV in the pool."""
        lengths = [len(self._spans[i].token_ids) for i in group]
        return PagedGroup(
            self._add_rows(group),
            len(group),
            max(lengths),
            self._padding(lengths),
            self.indices(self._table([self._spans[i] for i in group])),
        )

    def _add_rows(self, group: Sequence[int]) -> slice:
        begin = len(self.token_ids)
        for index in group:
            span = self._spans[index]
            positions = range(span.start, span.end)
            self.token_ids += span.token_ids
            self.positions += positions
            self.slots += self._slots(span.blocks, positions)
            self._last_rows[index] = len(self.token_ids) - 1
        return slice(begin, len(self.token_ids))

    def _slots(self, blocks: Sequence[int], positions: range) -> list[int]:
        size = self._block_size
        return [blocks[position // size] * size + position % size for position in positions]

    def _table(self, spans: Sequence[Span]) -> list[int]:
        used = [span.blocks[: -(-span.end // self._block_size)] for span in spans]
        width = max(map(len, used))
        return [
            block for blocks in used for block in (*blocks, *[blocks[0]] * (width - len(blocks)))
        ]

    def _padding(self, lengths: Sequence[int]) -> Padding | None:
        queries = max(lengths)
        if min(lengths) == queries:
            return None
        spread: list[int] = []
        gather: list[int] = []
        for index, length in enumerate(lengths):
            rows = range(len(gather), len(gather) + length)
            gather += range(index * queries, index * queries + length)
            spread += [*rows, *[rows[-1]] * (queries - length)]
        return Padding(self.indices(spread), self.indices(gather))
