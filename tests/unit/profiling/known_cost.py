"""An instance whose steps take a known time on a clock of their own."""

from collections.abc import Callable

import torch

from pdserve.config import InstanceConfig
from pdserve.engine.engine import Chunks, LayersDone
from pdserve.engine.sampler import SampledToken
from pdserve.instance.loading import LoadedEngine
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.latency.cost import InstanceCost

CONFIG = InstanceConfig(max_batch_tokens=256, max_batch_seqs=32, block_size=16)


class Clock:
    """Stands still but for what is added to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedRunner:
    """Computes nothing, and lets a clock run for as long as a cost says.

    `noise` gives a factor for each step.
    """

    def __init__(
        self, cost: InstanceCost, clock: Clock, noise: Callable[[], float] = lambda: 1.0
    ) -> None:
        self._cost = cost
        self._clock = clock
        self._noise = noise

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        prompts = [each for each in chunks if each.tokens > 1]
        decodes = [each for each in chunks if each.tokens == 1]
        pasts = [(each.sequence.computed, each.tokens) for each in prompts]
        tokens = sum(new for _, new in pasts)
        squares = sum((past + new) ** 2 - past**2 for past, new in pasts)
        context = sum(each.sequence.computed for each in decodes)
        if not decodes:
            seconds = self._cost.prefill_s(tokens, squares)
        elif not prompts:
            seconds = self._cost.decode_s(len(decodes), context)
        else:
            seconds = self._cost.mixed_s(tokens, squares, len(decodes), context)
        self._clock.now += seconds * self._noise()
        return [SampledToken(1) for _ in chunks]


def loaded_with(runner: TimedRunner, *, blocks: int = 1024, max_len: int = 2048) -> LoadedEngine:
    layout = KvLayout("known", "float32", layers=1, kv_heads=1, head_dim=2, block_size=16)
    return LoadedEngine(
        model="known",
        runner=runner,
        pool=KvPool(layout, blocks, torch.device("cpu")),
        layout=layout,
        vocab_size=50,
        max_model_len=max_len,
        eos_token_ids=frozenset(),
    )
