"""ViTDet's simple feature pyramid (Li et al., arXiv 2203.16527), as LocalVim's detectors have it."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.registry import MODELS


class ConvNorm(nn.Module):
    """Convolution without bias, then a LayerNorm over channels (eps 1e-6)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm_layer = LayerNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_layer(self.conv(x))


@MODELS.register_module()
class SimpleFPN(Network):
    """Maps at 4, 2, 1 and 1/2 times the size of one map, brought to one width, and coarser ones by leaving out pixels.

    Args:
        backbone_channel: C of the map.
        out_channels: of every level.
        num_outs: levels, at least 4.
        init_cfg: MMEngine's.

    Shape:
        (B, C, H, W), or a sequence with that as its only item, to a tuple of num_outs maps (B, out_channels, H', W').

    Raises:
        ValueError: fewer levels than 4, a C that 4 does not divide, or several maps.
    """

    def __init__(
        self, backbone_channel: int, out_channels: int = 256, num_outs: int = 5, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if num_outs < 4:
            raise ValueError(f"num_outs: found {num_outs}, expected at least 4")
        if backbone_channel % 4:
            raise ValueError(f"backbone_channel: found {backbone_channel}, expected a multiple of 4")
        self.num_outs = num_outs
        full, half, quarter = backbone_channel, backbone_channel // 2, backbone_channel // 4
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(full, half, 2, 2), LayerNorm2d(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2)
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(full, half, 2, 2))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2, 2)
        self.lateral_convs = nn.ModuleList(ConvNorm(width, out_channels, 1) for width in (quarter, half, full, full))
        self.fpn_convs = nn.ModuleList(ConvNorm(out_channels, out_channels, 3) for _ in range(4))

    def forward(self, x: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        if not isinstance(x, Tensor):
            if len(x) != 1:
                raise ValueError(f"x: found {len(x)} maps, expected one")
            x = x[0]
        scales = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        levels = [
            conv(lateral(scale(x))) for scale, lateral, conv in zip(scales, self.lateral_convs, self.fpn_convs)
        ]  # fmt: skip
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return tuple(levels)
