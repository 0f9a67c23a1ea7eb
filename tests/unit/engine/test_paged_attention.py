"""Attention over the paged cache against a dense one, for the head sizes of real models."""

import random

import pytest
import torch

from pdserve.engine.attention import Gathered, Heads, PagedStep
from pdserve.engine.batch import RaggedBatch, Span
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from tests.devices import DEVICES

BLOCK = 16
# Start and new tokens of each sequence: decode steps, chunks that go on, and a fresh prompt.
EXTENTS = ((1, 1), (17, 1), (250, 1), (703, 1), (48, 33), (160, 64), (0, 90))
# Relative to the reference in float64: by the digits of the dtype.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[queries, heads, dim] of the last queries of a sequence of keys [keys, kv_heads, dim]."""
    queries, keys = len(q), len(k)
    shared = q.shape[1] // k.shape[1]
    k, v = (each.double().repeat_interleave(shared, 1) for each in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * q.shape[-1] ** -0.5
    own = torch.arange(keys - queries, keys)
    scores.masked_fill_(torch.arange(keys) > own[:, None], -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "heads", [Heads(32, 8, 128), Heads(9, 3, 64), Heads(12, 12, 64)], ids=["gqa", "odd", "plain"]
)
def test_it_is_that_of_one_dense_sequence_each(
    device: torch.device, dtype: str, heads: Heads
) -> None:
    torch.manual_seed(3)
    layout = KvLayout("m", dtype, layers=1, kv_heads=heads.kv, head_dim=heads.dim, block_size=BLOCK)
    free = list(range(120))
    random.Random(3).shuffle(free)
    spans, texts = [], []
    for start, new in EXTENTS:
        table = [free.pop() for _ in range(-(-(start + new) // BLOCK))]
        spans.append(Span(range(len(spans) * 1000, len(spans) * 1000 + new), start, table, True))
        kv = torch.randn(2, start + new, heads.kv, heads.dim).to(pool_dtype(dtype))
        texts.append((torch.randn(new, heads.query, heads.dim).to(kv.dtype), *kv))
    pool = KvPool(layout, 120, device)
    for span, (_, k, v) in zip(spans, texts, strict=True):
        slots = pool.slots(span.blocks, 0, span.start)
        before = torch.stack((k, v))[None, :, : span.start].to(device)
        pool.write(slice(0, 1), slice(0, heads.kv), slots, before)

    batch = RaggedBatch.build(spans, BLOCK, device)
    # A row's token id says whose it is, and which of its new tokens.
    rows = [divmod(token_id, 1000) for token_id in batch.token_ids.tolist()]
    step = PagedStep(batch, pool, heads, Gathered())
    out = step.attend(
        0,
        *(
            torch.stack([texts[i][part][at + (spans[i].start if part else 0)] for i, at in rows])
            .contiguous()
            .to(device)
            for part in range(3)
        ),
    )
    expected = [dense(*text) for text in texts]
    reference = torch.stack([expected[i][at].flatten() for i, at in rows])
    error = (out.cpu().double() - reference).norm() / reference.norm()
    assert error < TOLERANCE[dtype]


def pool_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
