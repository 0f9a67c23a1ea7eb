"""How much memory there is, how much a model takes, and how many KV blocks fit in the rest."""

from pathlib import Path

import torch

from pdserve.errors import OutOfMemoryError
from pdserve.models.config import DTYPE_BYTES, ModelConfig

_GIB = 1 << 30
# cgroup version 2 and 1: folder below the mount point, limit, usage, reclaimable page cache.
_CGROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes(device: torch.device) -> int:
    """Memory that may still be taken on `device`, right now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_host_bytes()


def available_host_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that the kernel and every cgroup around this process still grant."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    paths = [line.split(":", 2)[2] for line in (proc / "self/cgroup").read_text().splitlines()]
    for folder, *names in _CGROUPS:
        mount = cgroup / folder
        own = {mount / path.lstrip("/") for path in paths}
        # A limit of any parent holds too; and a container sees itself at the mount point.
        for group in {group for path in own for group in (path, *path.parents)}:
            if group.is_relative_to(mount):
                free = min(free, _left_in(group, *names, unlimited=free))
    return max(0, free)


def resident_weight_bytes(config: ModelConfig, dtype: str, device: torch.device) -> int:
    """Memory that the loaded weights take.

    On CPU the output head is packed: a copy of the embedding where the two are tied.
    """
    copied = device.type == "cpu" and config.tie_embeddings
    head = config.vocab_size * config.hidden_size * DTYPE_BYTES[dtype]
    return config.weight_bytes(dtype) + (head if copied else 0)


def check_weights_fit(config: ModelConfig, dtype: str, device: torch.device, free: int) -> None:
    """Raises `OutOfMemoryError` unless the weights fit in `free` bytes of `device`."""
    needed = resident_weight_bytes(config, dtype, device)
    if needed <= free:
        return
    smaller = "; --dtype bfloat16 takes half" if dtype == "float32" else ""
    raise OutOfMemoryError(
        f"the weights need {_gib(needed)} in {dtype}, and {device} has {_gib(free)} free{smaller}",
        field="model",
        limit=str(free),
    )


def kv_blocks(block_bytes: int, block_size: int, *, budget: int, free: int, tokens: int) -> int:
    """How many KV blocks of `block_bytes` the `budget`, in bytes, holds.

    Raises `OutOfMemoryError` when `budget` is more than the `free` bytes, or when it does not hold
    one sequence of `tokens` tokens.
    """
    if budget > free:
        raise OutOfMemoryError(
            f"the KV pool needs {_gib(budget)}, and {_gib(free)} are free: lower --kv-memory-bytes",
            field="kv_memory_bytes",
            limit=str(free),
        )
    blocks = budget // block_bytes
    needed = -(-tokens // block_size)
    if blocks < needed:
        raise OutOfMemoryError(
            f"a sequence of {tokens} tokens needs {_gib(needed * block_bytes)} of KV, and the KV "
            f"pool has {_gib(budget)} ({_gib(free)} are free): raise --kv-memory-bytes or lower "
            f"--max-model-len",
            field="kv_memory_bytes",
            limit=str(needed * block_bytes),
        )
    return blocks


def _left_in(
    group: Path, limit_name: str, usage_name: str, cache_name: str, *, unlimited: int
) -> int:
    """Bytes that one cgroup still grants; `unlimited` where it sets no limit."""
    limit, usage = group / limit_name, group / usage_name
    if not limit.is_file() or not usage.is_file() or limit.read_text().strip() == "max":
        return unlimited
    statistics = group / "memory.stat"
    lines = statistics.read_text().splitlines() if statistics.is_file() else []
    cache = dict(line.split() for line in lines).get(cache_name, "0")
    return int(limit.read_text()) - int(usage.read_text()) + int(cache)


def _gib(size: int) -> str:
    return f"{size / _GIB:.3g} GiB"
