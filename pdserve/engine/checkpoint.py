"""Takes a model's tensors out of a store one by one: renamed, checked, fingerprinted."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from math import prod

import torch
from torch import Tensor

from pdserve.engine.families import Naming
from pdserve.engine.weights import TensorStore
from pdserve.errors import UnsupportedModelError
from pdserve.models.config import ModelConfig

Progress = Callable[[int, int], None]

_SAMPLES = 64  # elements of each tensor that enter the fingerprint


class Checkpoint:
    """The tensors of one model under the loader's names, on `device` in `dtype`.

    `progress(done, total)` is told how many parameters have been taken.
    """

    def __init__(
        self,
        config: ModelConfig,
        store: TensorStore,
        naming: Naming,
        *,
        dtype: torch.dtype,
        device: torch.device,
        progress: Progress | None = None,
    ) -> None:
        self.naming = naming
        self._store = store
        self._head_dim = config.head_dim
        self._dtype = dtype
        self._device = device
        self._progress = progress
        # Name without the prefix -> name in the store, of every tensor not yet taken.
        self._left = {
            name.removeprefix(naming.prefix): name
            for name in store.names
            if not naming.ignored.fullmatch(name)
        }
        self._total = sum(prod(store.shape(name)) for name in self._left.values())
        self._done = 0
        self._digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())

    def has(self, module: str) -> bool:
        """Whether the store has the weight of a module that only some checkpoints have."""
        return module in self.naming.modules and self._name(module, "weight", 0) in self._left

    def weight(self, module: str, shape: tuple[int, ...], layer: int = 0) -> Tensor:
        """The weight of `module`, of `shape` ([out, in] for a linear layer).

        Raises `UnsupportedModelError` where it is missing or has another shape.
        """
        transposed = module in self.naming.transposed
        tensor = self._take(
            self._name(module, "weight", layer), shape[::-1] if transposed else shape
        )
        return self._converted(module, tensor.t() if transposed else tensor)

    def bias(self, module: str, size: int, layer: int = 0) -> Tensor:
        """The bias [size] of `module`; raises like `weight`."""
        return self._converted(module, self._take(self._name(module, "bias", layer), (size,)))

    def discard(self, module: str) -> None:
        """Passes over the weight of a module that the model does not use, if there is one."""
        stored = self._left.pop(self._name(module, "weight", 0), None)
        if stored is not None:
            self._advance(self._store.shape(stored))

    def finish(self) -> str:
        """The fingerprint of what was taken, once that is all that there is.

        Sixteen hex digits of a SHA-256 over the configuration and, of every tensor, the name, the
        shape and 64 elements spread over it. Raises `UnsupportedModelError` when tensors are left.
        """
        if self._left:
            names = ", ".join(sorted(self._left.values())[:3])
            raise UnsupportedModelError(
                f"the checkpoint has {len(self._left)} tensors that its configuration has no place "
                f"for: {names}{', …' if len(self._left) > 3 else ''}"
            )
        return self._digest.hexdigest()[:16]

    def _name(self, module: str, part: str, layer: int) -> str:
        return f"{self.naming.modules[module].format(layer=layer)}.{part}"

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored = self._left.pop(name, None)
        if stored is None:
            raise UnsupportedModelError(f"the checkpoint has no tensor {name}")
        if self._store.shape(stored) != shape:
            raise UnsupportedModelError(
                f"tensor {stored} is {list(self._store.shape(stored))}; the configuration calls "
                f"for {list(shape)}"
            )
        tensor = self._store.read(stored)
        self._digest.update(f"{name}{list(shape)}".encode())
        self._digest.update(_sample(tensor))
        self._advance(shape)
        return tensor

    def _advance(self, shape: tuple[int, ...]) -> None:
        self._done += prod(shape)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _converted(self, module: str, tensor: Tensor) -> Tensor:
        if module in self.naming.interleaved:
            tensor = _split_halves(tensor, self._head_dim)
        return tensor.to(self._device, self._dtype)


def _sample(tensor: Tensor) -> bytes:
    """A few elements spread over `tensor`: few pages of a mapped file, yet enough to tell apart."""
    flat = tensor.flatten()
    return flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].float().numpy().tobytes()


def _split_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Reorders every head's rows from (x0, y0, x1, y1, …) to (x0, x1, …, y0, y1, …)."""
    pairs = rows.view(-1, head_dim // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)
