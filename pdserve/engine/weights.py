"""Tensors of a checkpoint by name, as they are stored; nothing is read before it is asked for."""

import json
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from pdserve.errors import UnsupportedModelError
from pdserve.models.gguf import GgufFile

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class TensorStore(Protocol):
    """The named tensors of one checkpoint."""

    @property
    def names(self) -> Collection[str]:
        """Every tensor's name."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is in `names`, without reading it."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """A tensor that is in `names`, on the CPU."""
        ...


class SafetensorsStore:
    """A Hugging Face directory: `model.safetensors`, or shards and their index.

    Files are memory-mapped until `close`. Raises `UnsupportedModelError` where the directory has no
    safetensors or they are damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        with self._stack:
            for name, path in _locate(directory).items():
                self._open(path, name)
            self._stack = self._stack.pop_all()
