"""An engine without a model, for what is measured or tested around it.

Only the computation is a double: scheduler, blocks, KV pool, transfers and services are real. Run
as a script it is a prefill or decode process: `python null_engine.py prefill --port=…`.
"""

import argparse
import os
import sys

import torch

from pdserve.config import InstanceConfig
from pdserve.engine.engine import Chunks, LayersDone
from pdserve.engine.sampler import SampledToken
from pdserve.instance.loading import LoadedEngine
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model
from pdserve.options import add_options, load

FIRST_TOKEN, LAST_TOKEN = 1000, 30000
BLOCKS = 20_000


def next_token(token_id: int) -> int:
    """What the null engine says after `token_id`: an ordinary token, never an end token."""
    return FIRST_TOKEN + (token_id * 7919 + 12345) % (LAST_TOKEN - FIRST_TOKEN)


class NullRunner:
    """Takes no time and says `next_token` of the last token."""

    def run(self, chunks: Chunks, layers_done: LayersDone | None) -> list[SampledToken | None]:
        """One token for each chunk that ends its sequence."""
        if layers_done is not None:
            layers_done(0, 1)
        return [
            SampledToken(next_token(chunk.sequence.tokens[-1]))
            if chunk.tokens == chunk.sequence.uncomputed
            else None
            for chunk in chunks
        ]


def load_null_engine(config: InstanceConfig) -> LoadedEngine:
    """A null engine with the vocabulary and limits of `config.model` and one byte-sized KV head."""
    shape = read_config(resolve_model(config.model))
    layout = KvLayout("null", "float32", 1, 1, 1, config.block_size)
    return LoadedEngine(
        model=config.model,
        runner=NullRunner(),
        pool=KvPool(layout, BLOCKS, torch.device("cpu")),
        layout=layout,
        vocab_size=shape.vocab_size,
        max_model_len=shape.served_length(config.max_model_len),
        eos_token_ids=frozenset(shape.eos_token_ids),
    )


def main() -> int:
    """Runs one instance with the null engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("prefill", "decode"))
    add_options(parser, InstanceConfig)
    flags = parser.parse_args()
    config = load(InstanceConfig, flags, os.environ)
    if flags.role == "prefill":
        from services.prefill.main import run
    else:
        from services.decode.main import run
    return run(config, load_null_engine)


if __name__ == "__main__":
    sys.exit(main())
