import pytest
import torch
from torch.nn import functional

from pdserve.engine.linear import DenseLinear, PackedLinear, make_linear

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tokens", [1, 4, 16, 67])
@pytest.mark.parametrize("biased", [False, True])
def test_every_kind_maps_like_the_plain_formula(
    dtype: torch.dtype, tokens: int, biased: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, 96, generator=generator)
    weight = torch.randn(80, 96, generator=generator)
    bias = torch.randn(80, generator=generator) if biased else None
    expected = functional.linear(x, weight, bias)
    for kind in (make_linear, DenseLinear):
        layer = kind(weight.to(dtype), None if bias is None else bias.to(dtype))
        actual = layer(x.to(dtype))
        assert actual.dtype == dtype
        torch.testing.assert_close(
            actual.float(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
        )


def test_a_packed_layer_does_not_follow_its_source() -> None:
    weight = torch.randn(32, 32)
    layer = make_linear(weight, None)
    assert isinstance(layer, PackedLinear)
    before = layer(torch.eye(32))
    weight.zero_()
    assert torch.equal(layer(torch.eye(32)), before)
