"""Segments: the rectangles of KV that a transfer is cut into."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pdserve.kv.layout import KvPart
from pdserve.kv.pool import KvPool


@dataclass(frozen=True, slots=True)
class Segment:
    """Layers × heads × tokens, numbered over the whole model and the whole sequence."""

    layers: range
    heads: range
    tokens: range

    def size(self, cell_bytes: int) -> int:
        """Bytes of its keys and values, with `cell_bytes` for each token, head and layer."""
        cells = len(self.layers) * len(self.heads) * len(self.tokens)
        return cells * cell_bytes


def next_segment(
    part: KvPart, sent: Sequence[int], ready: Sequence[int], max_cells: int
) -> Segment | None:
    """Returns the next segment to send, or None when all that is ready has been sent.

    `sent` and `ready` are tokens per layer of `part`. The segment starts at the first layer with
    anything to send and takes in the layers after it that stand at the same tokens, up to
    `max_cells` (layer, head, token) cells, and at least one token of one layer.
    """
    first = next((i for i, (s, r) in enumerate(zip(sent, ready, strict=True)) if s < r), None)
    if first is None:
        return None
    begin, end = sent[first], ready[first]
    same = first + 1
    while same < len(sent) and sent[same] == begin and ready[same] == end:
        same += 1
    per_token = len(part.heads)
    layers = min(same - first, max(1, max_cells // (per_token * (end - begin))))
    tokens = min(end - begin, max(1, max_cells // (per_token * layers)))
    offset = part.layers.start + first
    return Segment(range(offset, offset + layers), part.heads, range(begin, begin + tokens))


@dataclass(frozen=True, slots=True)
class PoolShard:
    """A rank's pool together with the part of the model's KV that it holds."""

    pool: KvPool
    part: KvPart

    def gather(self, segment: Segment, blocks: Sequence[int], staging: torch.Tensor) -> None:
        """Copies `segment` of the sequence in `blocks` into `staging` (uint8 [bytes])."""
        slots = self.pool.slots(blocks, segment.tokens.start, segment.tokens.stop)
        values = self._values(segment, staging)
        self.pool.read(self._layers(segment), self._heads(segment), slots, values)

    def scatter(self, segment: Segment, blocks: Sequence[int], staging: torch.Tensor) -> None:
        """Copies `staging` (uint8 [bytes]) into `segment` of the sequence in `blocks`."""
        slots = self.pool.slots(blocks, segment.tokens.start, segment.tokens.stop)
        values = self._values(segment, staging)
        self.pool.write(self._layers(segment), self._heads(segment), slots, values)

    def _layers(self, segment: Segment) -> slice:
        return _within(segment.layers, self.part.layers)

    def _heads(self, segment: Segment) -> slice:
        return _within(segment.heads, self.part.heads)

    def _values(self, segment: Segment, staging: torch.Tensor) -> torch.Tensor:
        """`staging` as [layers, 2, tokens, heads, head_dim]."""
        shape = (len(segment.layers), 2, len(segment.tokens), len(segment.heads), -1)
        return staging.view(self.pool.data.dtype).view(shape)


def _within(inner: range, outer: range) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
