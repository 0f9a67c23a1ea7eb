"""Random numbers as a function of seed, output token index and token id, on any device alike."""

import torch

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK64 = (1 << 64) - 1


def stream_key(seed: int, index: int) -> int:
    """Names the numbers of output token `index` under `seed`; a signed 64-bit integer."""
    return _signed(_mix_int((_mix_int(seed) + index + 1) & _MASK64))


def uniform(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Numbers in (0, 1), float64, for `keys` (of `stream_key`) and `token_ids`, broadcast.

    SplitMix64's mix of their sum. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014, figure 17.
    """
    mixed = _mix(keys + token_ids)
    return (_shifted(mixed, 11).double() + 0.5) * 2.0**-53


def gumbel(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, float64: added to log-probabilities, its largest sum is a sample.

    Source: Maddison, Tarlow, Minka, "A* sampling", NeurIPS 2014, section 2.
    """
    return -torch.log(-torch.log(uniform(keys, token_ids)))


def _mix(value: torch.Tensor) -> torch.Tensor:
    """SplitMix64 in wrapping int64 arithmetic."""
    value = value + _signed(_GOLDEN)
    value = (value ^ _shifted(value, 30)) * _signed(_MIX_1)
    value = (value ^ _shifted(value, 27)) * _signed(_MIX_2)
    return value ^ _shifted(value, 31)


def _shifted(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix_int(value: int) -> int:
    value = (value + _GOLDEN) & _MASK64
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK64
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK64
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
