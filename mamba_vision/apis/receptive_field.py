"""How far a backbone sees: its effective receptive field (Luo et al., NeurIPS 2016, arXiv 1701.04128)."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

SHARES = (0.2, 0.3, 0.5, 0.99)


def effective_receptive_field(backbone: nn.Module, images: Iterable[Tensor], level: int = -1) -> np.ndarray:
    """How strongly the middle of a feature map depends on each pixel, averaged over images.

    As Ding et al. (arXiv 2203.06717, section 5) draw it: gradient of the sum of what is positive in the middle's
    channels (all of a normed token's channels always have the same sum), its positive part, over the image's channels.

    Args:
        backbone: gives a tuple of maps (B, C, H, W).
        images: batches (B, channels, height, width) of one size.
        level: which of the maps.

    Returns:
        (height, width) float64, its largest value 1.

    Raises:
        ValueError: no images, or gradients that are all zero.
    """
    total, count = 0.0, 0
    for batch in images:
        x = batch.detach().clone().requires_grad_()
        with torch.enable_grad():
            feature = backbone(x)[level]
            middle = feature[:, :, feature.shape[2] // 2, feature.shape[3] // 2]
            (gradient,) = torch.autograd.grad(middle.relu().sum(), x)
        total = total + gradient.clamp_min(0).double().sum((0, 1)).cpu().numpy()
        count += len(batch)
    if not count or not np.max(total) > 0:
        raise ValueError(f"images: found {count}, of which no pixel matters; expected at least one that does")
    return total / total.max()


def field_sides(field: np.ndarray, shares: Sequence[float] = SHARES) -> dict[float, float]:
    """How large a rectangle around the middle holds each share of the whole, as its part of the image's area.

    Args:
        field: (height, width), not below 0.
        shares: parts of the sum over all pixels.
    """
    height, width = field.shape
    found, whole = {}, field.sum()
    for share in shares:
        for step in range(1, max(height, width) + 1):
            rows, columns = (max(1, round(side * step / max(height, width))) for side in (height, width))
            top, left = (height - rows) // 2, (width - columns) // 2
            if field[top : top + rows, left : left + columns].sum() >= share * whole * (1 - 1e-9):
                found[share] = rows * columns / (height * width)
                break
    return found
