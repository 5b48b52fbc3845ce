"""Enlarging by interpolation: what a network that makes images larger has to beat."""

import torch.nn.functional as F
from torch import Tensor


def bicubic(images: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) to (B, C, scale * H, scale * W) as MATLAB does it (a = -0.5), in [0, 1]."""
    if scale == 1:
        return images.clamp(0, 1)
    # With antialias, PyTorch's filter is MATLAB's; there is nothing to smooth where images grow.
    enlarged = F.interpolate(images, scale_factor=float(scale), mode="bicubic", align_corners=False, antialias=True)
    return enlarged.clamp(0, 1)
