"""MambaIR's residual state space block (Guo et al., ECCV 2024, arXiv 2402.15648, section 3.3) and its parts.

Legend: B batch, H, W rows and columns, C channels. Tokens stay channels-last; parameter names are the published ones.
"""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mamba_vision.models.layers.options import one_of
from mamba_vision.models.mixers.ss2d import SS2D

CONV_BRANCHES = ("classic", "light")


class ChannelAttention(nn.Module):
    """Each channel of (B, C, H, W) times a weight in (0, 1) that follows from the means of all channels.

    Raises:
        ValueError: fewer channels than the squeeze divides by.
    """

    def __init__(self, channels: int, squeeze: int = 30) -> None:
        super().__init__()
        if channels < squeeze:
            raise ValueError(f"channels: channel attention needs at least {squeeze}, found {channels}")
        inner = channels // squeeze
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.attention(x_BCHW)


class ConvBranch(nn.Module):
    """Convolutions and channel attention, (B, C, H, W) to (B, C, H, W).

    Args:
        channels: C.
        kind: 'classic', two 3 x 3 convolutions through C // 3 channels; 'light', pointwise and depthwise ones.
    """

    def __init__(self, channels: int, kind: str = "classic") -> None:
        super().__init__()
        one_of("conv_branch", kind, CONV_BRANCHES)
        if kind == "light":
            inner = channels // 2
            layers = [
                nn.Conv2d(channels, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
                nn.GELU(),
                nn.Conv2d(inner, channels, 1),
                nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=channels),
            ]
        else:
            inner = channels // 3
            layers = [nn.Conv2d(channels, inner, 3, padding=1), nn.GELU(), nn.Conv2d(inner, channels, 3, padding=1)]
        self.cab = nn.Sequential(*layers, ChannelAttention(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.cab(x_BCHW)


class ResidualStateSpaceBlock(nn.Module):
    """a = s1 * x + SS2D(norm(x)), then s2 * a + convolutions(norm(a)), with learned scales s1, s2 a channel.

    Args:
        channels: C, at least 30.
        d_state: states of the scan.
        expand: inner width of SS2D is int(expand * C).
        conv_branch: one of `CONV_BRANCHES`.
        drop_path: rate of dropping the SS2D branch.

    Shape:
        (B, H, W, C) to (B, H, W, C).
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        expand: float = 2.0,
        conv_branch: str = "classic",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(channels)
        self.self_attention = SS2D(channels, d_state=d_state, ssm_ratio=expand)
        self.drop_path = DropPath(drop_path)
        self.skip_scale = nn.Parameter(torch.ones(channels))
        self.conv_blk = ConvBranch(channels, conv_branch)
        self.ln_2 = nn.LayerNorm(channels)
        self.skip_scale2 = nn.Parameter(torch.ones(channels))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC * self.skip_scale + self.drop_path(self.self_attention(self.ln_1(x_BHWC)))
        y_BCHW = self.conv_blk(self.ln_2(x_BHWC).permute(0, 3, 1, 2))
        return x_BHWC * self.skip_scale2 + y_BCHW.permute(0, 2, 3, 1)
