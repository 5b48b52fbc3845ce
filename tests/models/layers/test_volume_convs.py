"""Convolutions of side 1 over volumes by products of matrices: the same results and gradients."""

import pytest
import torch
from torch import nn

from mamba_vision.models.layers import tall_products, volume_convs


@pytest.mark.parametrize("bias", [True, False])
def test_as_convolution(bias, monkeypatch):
    monkeypatch.setattr(volume_convs, "_fast_dtype", lambda x: torch.float64)
    monkeypatch.setattr(tall_products, "LEAST", 16)  # 315 voxels in parts, and some left over
    conv = nn.Conv3d(6, 10, 1, bias=bias).double()
    x = torch.randn(1, 6, 5, 7, 9, dtype=torch.float64, requires_grad=True)
    got, want = volume_convs.pointwise(conv, x), conv(x)
    torch.testing.assert_close(got, want)
    leaves, grad = (x, *conv.parameters()), torch.randn_like(want)
    pairs = zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-4)  # a weight's gradient is a sum in float32


def test_several_products_at_once(monkeypatch):
    monkeypatch.setattr(tall_products, "LEAST", 16)  # 70 rows in parts, and some left over
    rows = torch.randn(3, 70, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    got, want = tall_products.tall_product(rows, weight), rows @ weight.mT
    assert got.shape == (3, 70, 8)
    assert not got[..., 5:].any()
    torch.testing.assert_close(got[..., :5], want)
    grad = torch.randn_like(want)
    pairs = (torch.autograd.grad(y, (rows, weight), grad) for y in (got[..., :5], want))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-4)
