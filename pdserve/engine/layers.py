"""The small pieces of a decoder: norms, activations, MLPs, embeddings."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pdserve.engine.linear import Linear
from pdserve.models.config import Activation

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class Module(Protocol):
    """Maps [tokens, hidden] to [tokens, hidden]."""

    def __call__(self, x: Tensor) -> Tensor:
        """The mapped rows."""
        ...


class RmsNorm:
    """Root-mean-square norm (Zhang and Sennrich 2019)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norms [tokens, hidden] by row."""
        return functional.rms_norm(x, self._weight.shape, self._weight, self._eps)


class LayerNorm:
    """Layer norm with scale and shift (Ba et al. 2016)."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self._weight = weight
        self._bias = bias
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norms [tokens, hidden] by row."""
        return functional.layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


class HeadNorm:
    """RMS norm of every query and key head by itself, as Qwen3 has it.

    `weight` [heads + kv_heads, head_dim] is the query norm's, once a query head, then the key
    norm's, once a key head: so both are one operation.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norms [tokens, heads + kv_heads, head_dim] by head."""
        return functional.rms_norm(x, self._weight.shape[-1:], None, self._eps) * self._weight


class GatedMlp:
    """down(act(gate(x)) * up(x)) (Shazeer 2020), gate and up fused into one linear layer."""

    def __init__(self, gate_up: Linear, down: Linear, activation: Activation) -> None:
        self._gate_up = gate_up
        self._down = down
        self._activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [tokens, hidden] to the same."""
        gate, up = self._gate_up(x).chunk(2, -1)
        return self._down(self._activation(gate).mul_(up))


class PlainMlp:
    """down(act(up(x)))."""

    def __init__(self, up: Linear, down: Linear, activation: Activation) -> None:
        self._up = up
        self._down = down
        self._activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [tokens, hidden] to the same."""
        return self._down(self._activation(self._up(x)))


class Embedding:
    """Token embedding, plus learned positions where the model has them.

    `tokens` is [vocab, hidden]; `positions` [max_position, hidden] or None.
    """

    def __init__(self, tokens: Tensor, positions: Tensor | None) -> None:
        self._tokens = tokens
        self._positions = positions

    def __call__(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Rows [tokens, hidden] for ids and positions, both [tokens]."""
        rows = torch.embedding(self._tokens, token_ids)
        if self._positions is None:
            return rows
        return rows + torch.embedding(self._positions, positions)
