"""Instances whose steps take exactly as long as a profile says.

Only the computation is a double: it sleeps. Scheduler, blocks, KV pool, transfers, services and
router are real, so that what a prediction gets wrong here is not the costs that it was given. Run
as a module it is one instance: `python -m benchmarks.timed_engine decode --profile=FILE …`.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from pdserve.cli.local_cluster import ROUTER
from pdserve.cli.tethered import command, die_with
from pdserve.config import InstanceConfig
from pdserve.engine.engine import Chunks, LayersDone
from pdserve.engine.model import DEFAULT_LAYER_GROUPS
from pdserve.engine.sampler import SampledToken
from pdserve.instance.loading import LoadedEngine
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.latency.cost import InstanceCost
from pdserve.latency.profile import Profile, read_profile
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model
from pdserve.options import add_options, load
from services.decode import main as decode
from services.prefill import main as prefill

# An ordinary token of the default model.
_TOKEN = 1000


def step_s(cost: InstanceCost, chunks: Chunks) -> float:
    """Seconds that a step of these chunks takes by the formulas that the planner uses."""
    tokens = squares = batch = context = 0
    for chunk in chunks:
        past, new = chunk.sequence.computed, chunk.tokens
        if chunk.sequence.outputs and new == 1:
            batch += 1
            context += past + 1
        else:
            tokens += new
            squares += (past + new) ** 2 - past**2
    if not batch:
        return cost.prefill_s(tokens, squares)
    return (
        cost.mixed_s(tokens, squares, batch, context) if tokens else cost.decode_s(batch, context)
    )


class TimedRunner:
    """Takes `step_s`, says when its layers are done on the way, and always says the same token."""

    def __init__(self, cost: InstanceCost, layers: int, groups: int) -> None:
        self._cost = cost
        self._ends = [layers * (group + 1) // groups for group in range(groups)]

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """One token for each chunk that ends its sequence."""
        began, seconds = time.monotonic(), step_s(self._cost, chunks)
        begin = 0
        for end in self._ends:
            _sleep_until(began + seconds * end / self._ends[-1])
            if layers_done is not None:
                layers_done(begin, end)
            begin = end
        return [
            SampledToken(_TOKEN) if chunk.tokens == chunk.sequence.uncomputed else None
            for chunk in chunks
        ]


def load_timed_engine(profile: Profile, config: InstanceConfig) -> LoadedEngine:
    """An engine that takes the times of `profile` and moves KV of the model's size."""
    shape = read_config(resolve_model(config.model))
    cost, kv = profile.instance(1, 1), profile.kv
    layout = KvLayout("timed", "float32", kv.layers, kv.kv_heads, kv.head_dim, config.block_size)
    return LoadedEngine(
        model=config.model,
        runner=TimedRunner(cost, kv.layers, DEFAULT_LAYER_GROUPS),
        pool=KvPool(layout, cost.kv_tokens // config.block_size, torch.device("cpu")),
        layout=layout,
        vocab_size=shape.vocab_size,
        max_model_len=shape.served_length(config.max_model_len),
        eos_token_ids=frozenset(shape.eos_token_ids),
    )


def timed_command(profile: Path, role: str, *flags: str) -> Sequence[str]:
    """The command line of a timed instance, or of a router as any other, for `LocalCluster`."""
    if role == ROUTER:
        return command(role, *flags)
    module = (sys.executable, "-m", "benchmarks.timed_engine")
    return (*module, role, f"--profile={profile}", f"--parent={os.getpid()}", *flags)


def main() -> int:
    """Runs one instance that takes the times of a profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("prefill", "decode"))
    parser.add_argument("--profile", required=True)
    parser.add_argument("--parent", type=int, required=True, help="dies with this process")
    add_options(parser, InstanceConfig)
    flags = parser.parse_args()
    die_with(flags.parent)
    run = prefill.run if flags.role == "prefill" else decode.run
    load_engine = partial(load_timed_engine, read_profile(flags.profile))
    return run(load(InstanceConfig, flags, os.environ), load_engine)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
