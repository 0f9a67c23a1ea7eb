"""The checksum sees every change of a segment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.kv.digest import digest

bounded = settings(max_examples=60, deadline=None)


def tensor(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def reference(data: bytes) -> int:
    """The definition, in Python's own integers."""
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    return (sum(w * (2 * i + 1) for i, w in enumerate(words)) + len(data)) % 2**64


@bounded
@given(st.binary(max_size=100))
def test_it_is_the_weighted_sum_of_words(data):
    assert digest(tensor(data)) == reference(data)


@bounded
@given(st.binary(min_size=1, max_size=100), st.data())
def test_it_sees_a_changed_byte(data, draw):
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[at] ^= draw.draw(st.integers(1, 255))
    assert digest(tensor(bytes(changed))) != digest(tensor(data))


@pytest.mark.parametrize(("i", "j"), [(0, 1), (3, 60)])
def test_it_sees_exchanged_words(i, j):
    words = torch.arange(100, 164)
    exchanged = words.clone()
    exchanged[i], exchanged[j] = words[j], words[i]
    assert digest(words.view(torch.uint8)) != digest(exchanged.view(torch.uint8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_the_same():
    data = torch.randint(0, 256, (1 << 20,), dtype=torch.uint8)
    assert digest(data.cuda()) == digest(data)
