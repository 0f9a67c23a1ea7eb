"""From an instance's options to an engine that can be stepped."""

import logging
import time
from dataclasses import dataclass

import torch

from pdserve.config import InstanceConfig
from pdserve.engine.engine import Engine, KvListener, Runner
from pdserve.engine.loader import load_model
from pdserve.engine.memory import available_bytes, check_weights_fit, kv_blocks
from pdserve.engine.runner import ModelRunner
from pdserve.errors import ConfigError
from pdserve.instance.progress import LoadingProgress
from pdserve.kv.blocks import BlockPool
from pdserve.kv.config import TransferConfig
from pdserve.kv.layout import KvLayout
from pdserve.kv.pool import KvPool
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model
from pdserve.scheduling.batching import TokenBudget
from pdserve.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)

_FREE_SHARE = {"cpu": 0.1, "cuda": 0.9}


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """What computes, where its KV lives, and what a request may ask of it."""

    model: str
    runner: Runner
    pool: KvPool
    layout: KvLayout
    vocab_size: int
    max_model_len: int
    eos_token_ids: frozenset[int]
    layer_groups: int = 1  # that the KV is handed over in


def load_engine(config: InstanceConfig) -> LoadedEngine:
    """Loads the model and allocates the KV pool; shows progress on stderr.

    Raises `UnknownModelError`, `UnsupportedModelError`, `ConfigError`, or `OutOfMemoryError` with
    what is needed and what there is.
    """
    began = time.monotonic()
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    source = resolve_model(config.model)
    shape = read_config(source)
    max_model_len = shape.served_length(config.max_model_len)
    dtype_name = str(dtype).removeprefix("torch.")
    check_weights_fit(shape, dtype_name, device, available_bytes(device))
    with LoadingProgress(source.id) as progress:
        model = load_model(source, dtype, device, progress, layer_group=config.layer_group)
    layout = KvLayout(
        fingerprint=model.fingerprint,
        dtype=dtype_name,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        block_size=config.block_size,
    )
    free = available_bytes(device) - _staging_bytes(config, device)
    share = config.kv_memory_fraction or _FREE_SHARE[device.type]
    blocks = kv_blocks(
        layout.block_bytes,
        config.block_size,
        budget=config.kv_memory_bytes or int(share * free),
        free=free,
        tokens=config.max_model_len or config.block_size,
    )
    pool = KvPool(layout, blocks, device)
    runner = ModelRunner(model.decoder, pool)
    runner.warm_up()
    log.info(
        "model loaded",
        extra={
            "model": source.id,
            "dtype": layout.dtype,
            "device": str(device),
            "kv_blocks": blocks,
            "kv_bytes": blocks * layout.block_bytes,
            "seconds": round(time.monotonic() - began, 2),
        },
    )
    return LoadedEngine(
        model=source.id,
        runner=runner,
        pool=pool,
        layout=layout,
        vocab_size=shape.vocab_size,
        max_model_len=min(max_model_len, blocks * config.block_size),
        eos_token_ids=frozenset(shape.eos_token_ids),
        layer_groups=len(model.decoder.layer_groups),
    )


def _staging_bytes(config: InstanceConfig, device: torch.device) -> int:
    """Device memory that the channels' buffers may take, two for each."""
    return 2 * config.segment_bytes * config.max_channels if device.type == "cuda" else 0


def make_engine(
    config: InstanceConfig, loaded: LoadedEngine, listener: KvListener | None
) -> Engine:
    """The engine over what was loaded; `listener` is told of computed KV."""
    blocks = BlockPool(loaded.pool.num_blocks, prefix_cache=config.prefix_cache)
    budget = TokenBudget(config.max_batch_tokens, config.max_batch_seqs)
    return Engine(
        Scheduler(blocks, config.block_size, budget, loaded.max_model_len),
        loaded.runner,
        fingerprint=loaded.layout.fingerprint,
        block_size=config.block_size,
        eos_token_ids=loaded.eos_token_ids,
        listener=listener,
    )


def resolve_device(name: str) -> torch.device:
    """The device that `name` stands for; raises `ConfigError` when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}: {error}", field="device") from error
    if device.type not in _FREE_SHARE:
        raise ConfigError(f"device is {name!r}; it must be cpu or cuda", field="device")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r}, but torch finds no CUDA device", field="device")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `name` stands for on `device`."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def transfer_config(config: InstanceConfig) -> TransferConfig:
    """The transfer options of an instance."""
    return TransferConfig(
        host=config.advertise_host or config.host,
        segment_bytes=config.segment_bytes,
        segment_timeout_s=config.segment_timeout_s,
        connect_timeout_s=config.connect_timeout_s,
        lease_s=config.lease_s,
        max_channels=config.max_channels,
    )
