"""What GPUs can do by their data sheets, and how to describe others."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdserve.errors import ConfigError

_MIB, _GIB = 1 << 20, 1 << 30
_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or whatever else computes: a CPU core may be described the same way.

    `flops` is dense 16-bit matrix arithmetic, `flops_float32` that of float32, both in FLOP/s.
    `memory_bytes_per_s` is the bandwidth of its memory, `link_bytes_per_s` what it sends to the
    other GPUs of its node in one direction: over NVLink, or PCIe where there is none. `link_shared`
    says that the GPUs of a node share the path between their links, as PCIe devices share their
    host's, where an NVSwitch lets all of them send at once.
    """

    name: str
    memory_bytes: int
    flops: float
    flops_float32: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    link_shared: bool = False

    def flops_in(self, dtype: str) -> float:
        """FLOP/s of matrix products in `dtype`, one of `DTYPE_BYTES`."""
        return self.flops_float32 if dtype == "float32" else self.flops

    def ring_bytes_per_s(self, ranks: int) -> float:
        """What each of `ranks` GPUs sends to the next at once, in bytes per second.

        Two GPUs use the whole of their links. More of them divide what two get, where the path
        between the links is shared.
        """
        return self.link_bytes_per_s * (min(1.0, 2 / ranks) if self.link_shared else 1.0)


# Arithmetic, bandwidths and links are those of NVIDIA's data sheets, named above each entry. Where
# a sheet states arithmetic with structured sparsity, half of it is dense; where it states NVLink or
# PCIe in both directions, half of it is one. float32 is that of the CUDA cores: PyTorch does not
# use TF32 unless told to. Memory is the total that nvidia-smi reports, a little less than the
# rounded figure of the sheets and what an allocator can really have.
_CATALOGUE = (
    # "NVIDIA A100 Tensor Core GPU" (2021): 40 GB HBM2 at 1,555 GB/s; NVLink 600 GB/s.
    Gpu("A100-SXM4-40GB", 40960 * _MIB, 312e12, 19.5e12, 1555e9, 300e9),
    # The same sheet: 80 GB HBM2e at 2,039 GB/s.
    Gpu("A100-SXM4-80GB", 81920 * _MIB, 312e12, 19.5e12, 2039e9, 300e9),
    # "NVIDIA H100 Tensor Core GPU" (2023), SXM: 1,979 TFLOPS sparse; 3.35 TB/s; NVLink 900 GB/s.
    Gpu("H100-SXM5-80GB", 81559 * _MIB, 989.5e12, 67e12, 3.35e12, 450e9),
    # "NVIDIA H200 Tensor Core GPU" (2024), SXM: arithmetic of H100; 141 GB HBM3e at 4.8 TB/s.
    Gpu("H200-SXM5-141GB", 143771 * _MIB, 989.5e12, 67e12, 4.8e12, 450e9),
    # "NVIDIA Blackwell" (2024), HGX B200, an eighth of the board of eight: 36 PFLOPS sparse, 600
    # TFLOPS float32, 62 TB/s, NVLink 14.4 TB/s.
    Gpu("B200-SXM6-180GB", 183359 * _MIB, 2250e12, 75e12, 7.7e12, 900e9),
    # "NVIDIA L40S" (2023): 362.05 TFLOPS dense; 864 GB/s; PCIe Gen4 x16, 64 GB/s, no NVLink.
    Gpu("L40S", 46068 * _MIB, 362.05e12, 91.6e12, 864e9, 32e9, True),
    # "NVIDIA L4" (2023): 242 TFLOPS sparse; 300 GB/s; PCIe Gen4 x16, 64 GB/s, no NVLink.
    Gpu("L4", 23034 * _MIB, 121e12, 30.3e12, 300e9, 32e9, True),
)
_BY_NAME = {gpu.name.lower(): gpu for gpu in _CATALOGUE}
# Short names, and the product names that the GPU operator puts into the nodes' labels where they
# differ from the names above (`nvidia.com/gpu.product`, without its leading "NVIDIA-").
_ALIASES = {
    "a100": "a100-sxm4-80gb",
    "a100-40gb": "a100-sxm4-40gb",
    "a100-80gb": "a100-sxm4-80gb",
    "a100-sxm": "a100-sxm4-80gb",
    "h100": "h100-sxm5-80gb",
    "h100-sxm": "h100-sxm5-80gb",
    "h100-80gb-hbm3": "h100-sxm5-80gb",
    "h200": "h200-sxm5-141gb",
    "h200-sxm": "h200-sxm5-141gb",
    "b200": "b200-sxm6-180gb",
    "b200-sxm": "b200-sxm6-180gb",
}


def known_gpus() -> tuple[Gpu, ...]:
    """The catalogue."""
    return _CATALOGUE


def find_gpu(name: str) -> Gpu:
    """The GPU of that name, alias or product label; `ConfigError` with the names there are.

    Case, a leading "NVIDIA" and what separates the words do not matter. A slice of a GPU (MIG) is
    not the GPU, so its label is not known.
    """
    key = re.sub(r"[\s_-]+", "-", name.strip().lower()).removeprefix("nvidia-")
    gpu = _BY_NAME.get(_ALIASES.get(key, key))
    if gpu is None:
        known = ", ".join(known.name for known in _CATALOGUE)
        raise ConfigError(
            f"GPU {name!r} is not known; known are {known}. Others can be described by their "
            "memory_gib, tflops, memory_gbs and link_gbs",
            field="gpu",
            limit=known,
        )
    return gpu


def describe_gpu(description: Mapping[str, Any]) -> Gpu:
    """A GPU from `name`, `memory_gib`, `tflops`, `memory_gbs` and `link_gbs`.

    `tflops` is 10¹² FLOP/s of dense 16-bit matrix arithmetic; bandwidths are 10⁹ bytes per second,
    the link's in one direction. Optional are `tflops_float32`, by default the same as `tflops`, and
    `link_shared`, by default false. Raises `ConfigError` with the key that is missing, unknown, not
    a number above 0 or not a truth value.
    """
    name = description.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"name of a GPU is {name!r}; it must be a text", field="name")
    required = ("memory_gib", "tflops", "memory_gbs", "link_gbs")
    allowed = ("name", *required, "tflops_float32", "link_shared")
    for key in description:
        if key not in allowed:
            raise ConfigError(
                f"GPU {name}: {key!r} is not a key; keys are {', '.join(allowed)}",
                field=str(key),
                limit=", ".join(allowed),
            )
    memory, flops, memory_rate, link_rate = (
        _positive(name, key, description.get(key)) for key in required
    )
    float32 = _positive(name, "tflops_float32", description.get("tflops_float32", flops))
    shared = description.get("link_shared", False)
    if not isinstance(shared, bool):
        raise ConfigError(
            f"GPU {name}: link_shared is {shared!r}; it must be true or false", field="link_shared"
        )
    return Gpu(
        name=name,
        memory_bytes=int(memory * _GIB),
        flops=flops * _TERA,
        flops_float32=float32 * _TERA,
        memory_bytes_per_s=memory_rate * _GIGA,
        link_bytes_per_s=link_rate * _GIGA,
        link_shared=shared,
    )


def _positive(name: str, key: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        problem = "is missing" if value is None else f"is {value!r}"
        raise ConfigError(
            f"GPU {name}: {key} {problem}; it must be a number above 0", field=key, limit="0"
        )
    return float(value)
