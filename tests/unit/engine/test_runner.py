"""A step is over on the device, too, when the runner returns."""

import pytest
import torch
from tiny_models import CPU

from pdserve.engine.runner import ModelRunner
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.kv.prefix import HashChain
from pdserve.sampling import SamplingParams
from pdserve.scheduling.batching import Chunk
from pdserve.scheduling.sequence import Sequence, Work

LAYOUT = KvLayout("m", "float32", layers=1, kv_heads=1, head_dim=2, block_size=4)


class LazyPool(KvPool):
    """Notes whether its writes have been waited for."""

    def __init__(self):
        super().__init__(LAYOUT, 4, CPU)
        self.pending = False

    def synchronize(self):
        self.pending = False


class LazyDecoder:
    """Writes KV some time later."""

    def forward(self, batch, kv, on_layers):
        kv.pending = True
        return torch.zeros(len(batch.sampled), 8)


@pytest.mark.parametrize("tokens", [3, 6], ids=["part of a prompt", "a whole prompt"])
def test_kv_is_there_when_the_step_is_over(tokens):
    pool = LazyPool()
    sequence = Sequence(
        key="s",
        tokens=[1, 2, 3, 4, 5, 6],
        prompt_tokens=6,
        sampling=SamplingParams(temperature=0.0),
        end_token_ids=frozenset(),
        work=Work.PREFILL,
        chain=HashChain("m", 4),
        blocks=[0, 1],
    )
    sampled = ModelRunner(LazyDecoder(), pool).run([Chunk(sequence, tokens)], None)
    assert len(sampled) == 1
    assert not pool.pending
