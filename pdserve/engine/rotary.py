"""Rotary position embedding (Su et al. 2021, "RoFormer", 3.4), in the half-split convention."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pdserve.models.config import ModelConfig, RopeScaling


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and signed sines of one step's positions, [tokens, 1, head_dim] each."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotates `x` [tokens, heads, head_dim]: dimension i pairs with i + head_dim / 2."""
        return torch.addcmul(x * self.cos, x.roll(x.shape[-1] // 2, -1), self.sin)


class Rotary:
    """Turns positions into rotations, once a step for all layers.

    Angles are computed in float32 as they are needed: cheaper than a table of every position of a
    long context would be to keep, and as exact.
    """

    def __init__(self, frequencies: Tensor, dtype: torch.dtype) -> None:
        self._frequencies = frequencies
        self._dtype = dtype

    def __call__(self, positions: Tensor) -> Rotation:
        """The rotations of `positions` [tokens]."""
        angles = torch.outer(positions.float(), self._frequencies)
        cos, sin = angles.cos(), angles.sin()
        return Rotation(
            torch.cat((cos, cos), -1).unsqueeze(1).to(self._dtype),
            torch.cat((-sin, sin), -1).unsqueeze(1).to(self._dtype),
        )


def rotary_frequencies(config: ModelConfig) -> Tensor:
    """Radians a position of each pair of dimensions, [head_dim / 2], float32, scaled."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return _scaled(frequencies, config.rope_scaling)


def _scaled(frequencies: Tensor, scaling: RopeScaling | None) -> Tensor:
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    # Full turns within the original context decide: few turns are stretched, many are kept.
    turns = scaling.original_max_position * frequencies / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((turns - scaling.low_freq_factor) / span).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor
