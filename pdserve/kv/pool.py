"""The memory that KV blocks live in."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from pdserve.kv.layout import KvLayout


class KvPool:
    """KV of all layers of one rank: `data` is [layers, 2, blocks, block_size, kv_heads, head_dim].

    Index 0 of the second dimension holds keys, index 1 values. Who may use which block is decided
    by `pdserve.kv.blocks`; this class only moves bytes.
    """

    def __init__(self, layout: KvLayout, num_blocks: int, device: torch.device) -> None:
        self.layout = layout
        self.num_blocks = num_blocks
        self.device = device
        shape = (
            layout.layers,
            2,
            num_blocks,
            layout.block_size,
            layout.kv_heads,
            layout.head_dim,
        )
        self.data = _zeros(shape, getattr(torch, layout.dtype), device)

    def slots(self, blocks: Sequence[int], token_begin: int, token_end: int) -> torch.Tensor:
        """Positions [tokens] in the flattened (blocks × block_size) dimension, int64."""
        size = self.layout.block_size
        positions = torch.arange(token_begin, token_end)
        table = torch.tensor(blocks, dtype=torch.int64)
        return (table[positions // size] * size + positions % size).to(self.device)

    def read(self, layers: slice, heads: slice, slots: torch.Tensor, out: torch.Tensor) -> None:
        """Copies KV of `slots` [tokens] into `out` [layers, 2, tokens, heads, head_dim]."""
        flat = self.data[layers].flatten(2, 3)[:, :, :, heads]
        torch.index_select(flat, 2, slots, out=out)

    def write(self, layers: slice, heads: slice, slots: torch.Tensor, values: torch.Tensor) -> None:
        """Copies `values` [layers, 2, tokens, heads, head_dim] into the KV of `slots` [tokens]."""
        flat = self.data[layers].flatten(2, 3)[:, :, :, heads]
        flat.index_copy_(2, slots, values)

    def mark(self) -> torch.cuda.Event | None:
        """Marks the writes that have been enqueued so far, for another stream to wait on.

        None on CPU, where a write is done when the call returns.
        """
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def synchronize(self) -> None:
        """Returns when the writes that have been enqueued so far are done."""
        mark = self.mark()
        if mark is not None:
            mark.synchronize()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros: what a masked position reads is multiplied by 0, which a stray NaN would survive.

    On CPU from calloc, whose pages take memory when they are first written; `torch.zeros` writes
    all of them.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
