"""Tensors of a checkpoint by name, as they are stored; nothing is read before it is asked for."""

import json
from collections.abc import Collection
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
        """A tensor that is in `names`, on the CPU; it may share memory with the file."""
        ...


class SafetensorsStore:
    """A Hugging Face directory: `model.safetensors`, or shards and their index.

    Files are memory-mapped while the store lives. Raises `UnsupportedModelError` where the
    directory has no safetensors or they are damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, Any] = {}
        for path in _weight_files(directory):
            file = _open(path)
            self._files |= dict.fromkeys(file.keys(), file)

    @property
    def names(self) -> Collection[str]:
        """Every tensor's name."""
        return self._files.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the file's header."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        """A tensor in the dtype it is stored in."""
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor


class GgufStore:
    """A GGUF file; tensors are dequantized to float32 as they are read."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file

    @property
    def names(self) -> Collection[str]:
        """Every tensor's name."""
        return self._file.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, outermost dimension first."""
        return self._file.tensors[name].shape

    def read(self, name: str) -> torch.Tensor:
        """A tensor in float32."""
        return torch.from_numpy(self._file.read(name))


def _weight_files(directory: Path) -> list[Path]:
    index = directory / _INDEX
    if index.is_file():
        return _shards(index)
    single = directory / _SINGLE
    if single.is_file():
        return [single]
    if any(path for pattern in _PICKLES for path in directory.glob(pattern)):
        raise UnsupportedModelError(
            f"{directory} has its weights as pickle files only, which can run code when they are "
            f"loaded; convert them to safetensors (save_pretrained of transformers does)"
        )
    raise UnsupportedModelError(f"{directory} has neither {_SINGLE} nor {_INDEX}")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"{index} is no safetensors index: {error!r}") from error
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise UnsupportedModelError(f"{index} names {name!r}, which is not in its directory")
    return [index.parent / name for name in names]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise UnsupportedModelError(f"{path} cannot be read as safetensors: {error}") from error
