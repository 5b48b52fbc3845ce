"""Four scales from the maps of a plain (single-scale) backbone, as BEiT made it for dense prediction."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn


class VitPyramid(nn.Module):
    """Maps of one stride brought to strides 4, 8, 16 and 32.

    Patches of 16: transposed convolutions for x4 (two, with norm and GELU between) and x2 (one), identity, max pooling.
    Patches of 8: one transposed convolution, identity, max pooling by 2 and by 4.

    Args:
        channels: width of every map, in and out.
        stride: 16 or 8, the stride of the maps that come in.
        norm_cfg: norm between the two transposed convolutions (published: SyncBN).

    Shape:
        four maps (B, C, H, W) to four maps (B, C, H', W'), finest first. One map alone serves all four scales.

    Raises:
        ValueError: another stride, or neither one nor four maps.
    """

    def __init__(self, channels: int, stride: int = 16, norm_cfg: dict | None = None) -> None:
        super().__init__()

        def up() -> nn.Module:
            return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

        if stride == 16:
            norm = build_norm_layer(norm_cfg or {"type": "BN"}, channels)[1]
            self.fpn1 = nn.Sequential(up(), norm, nn.GELU(), up())
            self.fpn2 = nn.Sequential(up())
            self.fpn3 = nn.Identity()
            self.fpn4 = nn.MaxPool2d(2, 2)
        elif stride == 8:
            self.fpn1 = nn.Sequential(up())
            self.fpn2 = nn.Identity()
            self.fpn3 = nn.MaxPool2d(2, 2)
            self.fpn4 = nn.MaxPool2d(4, 4)
        else:
            raise ValueError(f"stride: found {stride}, expected 8 or 16")

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if len(maps) == 1:
            maps = tuple(maps) * 4
        if len(maps) != 4:
            raise ValueError(f"maps: found {len(maps)}, expected 1 or 4 for a pyramid of four scales")
        return tuple(scale(x) for scale, x in zip((self.fpn1, self.fpn2, self.fpn3, self.fpn4), maps))
