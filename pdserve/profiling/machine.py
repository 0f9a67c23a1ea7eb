"""What a profile was measured on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that computes, the processor, and what software drives them."""

    device: str
    cpu: str
    cores: int
    threads: int
    torch: str
    python: str


def this_machine(device: torch.device) -> Machine:
    """This machine; its device is the GPU, or else the processor."""
    cpu = _cpu_name(Path("/proc/cpuinfo"))
    return Machine(
        device=gpu_name(torch.cuda.get_device_name(device)) if device.type == "cuda" else cpu,
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
    )


def gpu_name(driver_name: str) -> str:
    """The GPU as the hardware catalogue names it, or as its driver does where it is not there."""
    try:
        return find_gpu(driver_name).name
    except ConfigError:
        return driver_name


def _cpu_name(cpuinfo: Path) -> str:
    """The processor as the kernel names it, or its architecture where it does not."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
