"""Attention of one step over the paged KV cache, for many sequences at once."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pdserve.engine.batch import FreshGroup, PagedGroup, RaggedBatch
from pdserve.engine.layers import Module
from pdserve.engine.linear import Linear
from pdserve.engine.rotary import Rotation
from pdserve.engine.scratch import Scratch
from pdserve.kv.pool import KvPool


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, KV heads, and the size of each."""

    query: int
    kv: int
    dim: int


@dataclass(frozen=True, slots=True)
class Gathered:
    """Where the KV that a paged group sees is gathered, layer after layer."""

    keys: Scratch = field(default_factory=Scratch)
    values: Scratch = field(default_factory=Scratch)


class SelfAttention:
    """Fused QKV projection, rotation, attention over the cache, output projection."""

    def __init__(self, qkv: Linear, output: Linear, norm: Module | None, heads: Heads) -> None:
        self._qkv = qkv
        self._output = output
        self._norm = norm
        self._heads = heads

    def __call__(
        self, x: Tensor, rotation: Rotation | None, step: "PagedStep", layer: int
    ) -> Tensor:
        """Maps [tokens, hidden] to the same, writing the tokens' KV of `layer`."""
        heads = self._heads
        qkv = self._qkv(x).view(-1, heads.query + 2 * heads.kv, heads.dim)
        qk, v = qkv[:, : heads.query + heads.kv], qkv[:, heads.query + heads.kv :]
        if self._norm is not None:
            qk = self._norm(qk)
        if rotation is not None:
            qk = rotation.apply(qk)
        q, k = qk[:, : heads.query], qk[:, heads.query :]
        return self._output(step.attend(layer, q, k, v))


class PagedStep:
    """What all layers of one step share: the batch, its masks and views of the pool."""

    def __init__(self, batch: RaggedBatch, kv: KvPool, heads: Heads, gathered: Gathered) -> None:
        self._batch = batch
        self._heads = heads
        self._gathered = gathered
        keys, values = kv.data.unbind(1)  # [layers, blocks, block_size, kv_heads, head_dim] each
        self._key_slots = keys.flatten(1, 2).unbind(0)
        self._value_slots = values.flatten(1, 2).unbind(0)
        # Whole blocks as rows: gathering them is several times as fast as gathering tokens.
        self._key_blocks = keys.flatten(2).unbind(0)
        self._value_blocks = values.flatten(2).unbind(0)
        shape = (kv.layout.block_size, heads.query // heads.kv)
        self._masks = [
            _causal_mask(group, batch.positions, shape, kv.data.dtype) for group in batch.paged
        ]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Writes `k`, `v` [tokens, kv_heads, head_dim] to the pool and attends with `q`.

        Returns [tokens, heads * head_dim].
        """
        self._key_slots[layer].index_copy_(0, self._batch.slots, k)
        self._value_slots[layer].index_copy_(0, self._batch.slots, v)
        parts = [
            self._attend_paged(group, mask, layer, q[group.rows])
            for group, mask in zip(self._batch.paged, self._masks, strict=True)
        ]
        parts += [
            _attend_fresh(group, q[group.rows], k[group.rows], v[group.rows])
            for group in self._batch.fresh
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_paged(self, group: PagedGroup, mask: Tensor, layer: int, q: Tensor) -> Tensor:
        """Attends over blocks gathered from the pool.

        The query heads that share a KV head are treated as further queries of it: no KV is copied
        for them, and decoding becomes a small matrix product where it was one of vectors.
        """
        spans, queries = group.spans, group.queries
        kv_heads, dim = self._heads.kv, self._heads.dim
        k = _gather(self._key_blocks[layer], group.table, self._gathered.keys)
        v = _gather(self._value_blocks[layer], group.table, self._gathered.values)
        folded = _rectangle(q, group).view(spans, queries, kv_heads, -1, dim)
        out = scaled_dot_product_attention(
            folded.permute(0, 2, 3, 1, 4).reshape(spans, kv_heads, -1, dim),
            k.view(spans, -1, kv_heads, dim).transpose(1, 2),
            v.view(spans, -1, kv_heads, dim).transpose(1, 2),
            attn_mask=mask,
        )
        unfolded = out.view(spans, kv_heads, -1, queries, dim).permute(0, 3, 1, 2, 4)
        return _rows(unfolded.reshape(spans * queries, -1), group)


def _gather(blocks: Tensor, table: Tensor, into: Scratch) -> Tensor:
    """The blocks that `table` lists, [listed, block], in `into`."""
    return torch.index_select(blocks, 0, table, out=into.rows(table.numel(), blocks))


def _attend_fresh(group: FreshGroup, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attends over the step's own keys. Padding comes last, where no real query sees it."""
    out = scaled_dot_product_attention(
        _rectangle(q, group).transpose(1, 2),
        _rectangle(k, group).transpose(1, 2),
        _rectangle(v, group).transpose(1, 2),
        is_causal=True,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return _rows(out.transpose(1, 2).reshape(group.spans * group.queries, -1), group)


def _rectangle(rows: Tensor, group: FreshGroup | PagedGroup) -> Tensor:
    """[rows, heads, head_dim] as [spans, queries, heads, head_dim]."""
    if group.padding is not None:
        rows = rows.index_select(0, group.padding.spread)
    return rows.view(group.spans, group.queries, *rows.shape[1:])


def _rows(cells: Tensor, group: FreshGroup | PagedGroup) -> Tensor:
    """[spans * queries, size] without its padding."""
    return cells if group.padding is None else cells.index_select(0, group.padding.gather)


def _causal_mask(
    group: PagedGroup, positions: Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """What is added to the scores: 0 up to a query's own position, -inf beyond.

    `shape` is (block size, query heads a KV head). Returns [spans, 1, folded queries, keys], with
    one query for all heads where there is but one a span. -inf never fills a row: a padding query
    has the position of a real one.
    """
    block_size, heads_per_kv = shape
    keys = torch.arange(group.table.numel() // group.spans * block_size, device=positions.device)
    own = positions[group.rows]
    if group.padding is not None:
        own = own.index_select(0, group.padding.spread)
    hidden = keys > own.view(group.spans, 1, group.queries, 1)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
    mask.masked_fill_(hidden, -torch.inf)
    return mask if group.queries == 1 else mask.repeat(1, 1, heads_per_kv, 1)
