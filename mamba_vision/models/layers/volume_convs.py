"""Convolutions of side 1 over channels-last volumes in half precision on a GPU, where cuDNN's own choice is slow."""

import torch
from torch import Tensor, nn

from mamba_vision.models.layers.tall_products import half_dtype, tall_product


def pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution of side 1, as a product of matrices; elsewhere, and for compilers, the nn.Conv3d as it is."""
    dtype = _fast_dtype(x)
    if dtype is None:
        return conv(x)
    x_BDHWC = x.movedim(1, -1).to(dtype)
    bias = None if conv.bias is None else conv.bias.to(dtype)
    rows = tall_product(x_BDHWC.flatten(0, -2), conv.weight.flatten(1).to(dtype), bias)
    if rows.shape[1] > conv.out_channels:
        rows = rows[:, : conv.out_channels].contiguous()
    return rows.unflatten(0, x_BDHWC.shape[:-1]).movedim(-1, 1)


def _fast_dtype(x: Tensor) -> torch.dtype | None:
    """The half precision to compute in; None where nn.Conv3d shall run."""
    return half_dtype(x) if x.is_contiguous(memory_format=torch.channels_last_3d) else None
