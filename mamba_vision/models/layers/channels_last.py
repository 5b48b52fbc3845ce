"""Convolutions and norms of (B, C, H, W) networks for maps that are kept channels-last, (B, H, W, C).

Turning the axes costs nothing: a permuted view of a contiguous (B, H, W, C) tensor is what PyTorch calls channels_last,
and convolutions return that layout for it.
"""

import torch
from torch import Tensor, nn

from mamba_vision.models.layers.fused_norm import TokenNorm


class ToChannelsFirst(nn.Module):
    """(B, H, W, C) to (B, C, H, W), a view."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC.permute(0, 3, 1, 2)


class ToChannelsLast(nn.Module):
    """(B, C, H, W) to (B, H, W, C), a view."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.permute(0, 2, 3, 1)


class ChannelsLastBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d of (B, H, W, C)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return super().forward(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


NORMS: dict[str, type[nn.Module]] = {"ln": TokenNorm, "ln2d": TokenNorm, "bn": ChannelsLastBatchNorm}


def channels_last_norm(name: str, channels: int) -> nn.Module:
    """A norm over (B, H, W, C) by VMamba's names: 'ln' and 'ln2d' (the same here) or 'bn'; eps 1e-5.

    Raises:
        ValueError: another name.
    """
    if name not in NORMS:
        raise ValueError(f"norm_layer: found {name!r}, expected one of {', '.join(NORMS)}")
    return NORMS[name](channels, eps=1e-5)


def volume_layout(x: Tensor) -> Tensor:
    """A volume (B, C, D, H, W) channels-last where that is the faster layout: half precision on a GPU.

    The convolutions behind keep the layout of what they read.
    """
    half = x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    if not x.is_cuda or not half or torch.compiler.is_compiling():
        return x
    return x.contiguous(memory_format=torch.channels_last_3d)
