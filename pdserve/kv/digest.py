"""A checksum that CPU and GPU compute alike."""

import torch

_WORD_BYTES = 8
_MASK = (1 << 64) - 1


def digest(data: torch.Tensor) -> int:
    """Returns the checksum of `data` (uint8 [bytes]) as an unsigned 64-bit number.

    The sum of the data's 64-bit words, each times an odd weight that grows with its position,
    modulo 2**64. Integer arithmetic that wraps around is exact in any order of summation, so every
    device gets the same number; the weights make exchanged or shifted words visible. It guards
    against mistakes, not against an adversary.
    """
    whole = data.numel() // _WORD_BYTES * _WORD_BYTES
    words = data[:whole].view(torch.int64)
    weights = torch.arange(1, 2 * words.numel() + 1, 2, device=data.device)
    total = int((words * weights).sum())
    rest = bytes(data[whole:].tolist())
    total += int.from_bytes(rest, "little") * (2 * words.numel() + 1)
    return (total + data.numel()) & _MASK
