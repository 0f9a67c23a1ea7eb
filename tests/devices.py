"""The devices that a test runs on, and what lets two processes share one GPU."""

import os
from itertools import count

import pytest
import torch

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = [
    pytest.param(CPU, id="cpu"),
    pytest.param(CUDA, id="cuda", marks=[pytest.mark.gpu, needs_gpu]),
]

_hosts = count()


def nccl_host() -> dict[str, str]:
    """Environment in which NCCL takes a process for the only one of its host.

    NCCL refuses two ranks of one host on one GPU. Ranks of different hosts it joins by sockets.
    """
    return {
        "NCCL_HOSTID": f"pdserve-{os.getpid()}-{next(_hosts)}",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
    }
