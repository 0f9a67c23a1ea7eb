"""Random numbers that every instance must agree on."""

import math

import pytest
import torch

from pdserve.engine.noise import gumbel, stream_key, uniform
from tests.devices import needs_gpu

N = 20_000


def draw(seed, index, token_id):
    return float(uniform(torch.tensor(stream_key(seed, index)), torch.tensor(token_id)))


def test_numbers_stay_what_they_are():
    """Instances of different versions continue each other's streams."""
    drawn = [draw(0, 0, 0), draw(0, 1, 0), draw(1, 0, 0), draw(2**64 - 1, 10**6, 49151)]
    assert drawn == [
        0.5803592313314876,
        0.12429679924430365,
        0.8323609501268625,
        0.7114095779040024,
    ]


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_draws_the_same():
    keys = torch.tensor([[stream_key(seed, seed % 7)] for seed in range(50)])
    ids = torch.arange(50_000)
    assert torch.equal(uniform(keys.cuda(), ids.cuda()).cpu(), uniform(keys, ids))
    torch.testing.assert_close(gumbel(keys.cuda(), ids.cuda()).cpu(), gumbel(keys, ids))


def test_the_key_is_that_of_splitmix64():
    """The first output of SplitMix64 seeded with 0 is published; the key builds on it."""
    mask = 2**64 - 1
    first = 0xE220A8397B1DCDAF
    state = (first + 1 + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    assert stream_key(0, 0) & mask == state ^ (state >> 31)


@pytest.mark.parametrize(
    ("keys", "token_ids"),
    [
        ([stream_key(0, i) for i in range(N)], [7] * N),
        ([stream_key(i, 3) for i in range(N)], [0] * N),
        ([stream_key(5, 5)] * N, list(range(N))),
    ],
    ids=["indices", "seeds", "tokens"],
)
def test_numbers_are_well_spread(keys, token_ids):
    drawn = uniform(torch.tensor(keys), torch.tensor(token_ids))
    assert 0 < drawn.min() < drawn.max() < 1
    cells = (drawn * 64).long()
    assert_even(torch.bincount(cells, minlength=64))
    pairs = (cells[:-1] // 8) * 8 + cells[1:] // 8
    assert_even(torch.bincount(pairs, minlength=64))


def assert_even(counts):
    """Chi-square with 63 degrees of freedom: mean 63, standard deviation about 11."""
    expected = counts.sum() / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * math.sqrt(2 * 63)


def test_gumbel_noise_has_the_moments_of_its_distribution():
    noise = gumbel(torch.tensor(stream_key(1, 1)), torch.arange(N))
    assert noise.isfinite().all()
    assert abs(noise.mean() - 0.5772) < 0.03
    assert abs(noise.var() - math.pi**2 / 6) < 0.08
