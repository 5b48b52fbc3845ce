"""A backbone as what it gives: maps, coarser and coarser, with their strides and widths at hand."""

from collections.abc import Sequence
from math import ceil

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Maps of a backbone, finest first.

    Stages of a hierarchical backbone are handed on. Maps of a plain one, which all have the stride of its patches, are
    resized (bilinear up, averages down): no weights are added.

    Args:
        backbone: gives a tuple of maps.
        channels: width of every level.
        strides: pixels of the image that a cell of a level covers.
        sources: which of the backbone's maps makes a level, to be resized; None where the maps are the levels.

    Shape:
        (B, C, H, W) to a tuple of (B, channels[i], about H / strides[i], about W / strides[i]).
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        sources: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.channels, self.strides = backbone, tuple(channels), tuple(strides)
        self.sources = None if sources is None else tuple(sources)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)
        if self.sources is None:
            return tuple(maps)
        sizes = [tuple(ceil(side / stride) for side in x.shape[-2:]) for stride in self.strides]
        return tuple(_resized(maps[source], size) for source, size in zip(self.sources, sizes))


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if size[0] * size[1] < x.shape[-2] * x.shape[-1]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
