"""Linear layers: y = x Wᵀ + b."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Linear(Protocol):
    """Maps [tokens, in_features] to [tokens, out_features]."""

    def __call__(self, x: Tensor) -> Tensor:
        """The mapped rows, in the dtype of `x`."""
        ...


class DenseLinear:
    """A linear layer whose weight [out_features, in_features] stays as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [tokens, in_features] to [tokens, out_features]."""
        return functional.linear(x, self._weight, self._bias)


class PackedLinear:
    """A linear layer whose weight is kept in the blocked layout that oneDNN computes in.

    `functional.linear` makes that layout anew on every call; kept, it halves the time of the small
    batches that decoding consists of.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [tokens, in_features] to [tokens, out_features]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def make_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The fastest linear layer for a weight [out_features, in_features] on its device.

    The weight need not be kept by the caller; on CPU the result holds a copy of its own.
    """
    if weight.device.type == "cpu" and _can_pack(weight.dtype):
        return PackedLinear(weight, bias)
    return DenseLinear(weight, bias)


def _can_pack(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return dtype == torch.float32
