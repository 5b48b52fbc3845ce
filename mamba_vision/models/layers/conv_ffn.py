"""MambaIRv2's feed-forward layers (arXiv 2411.15269), which look at a pixel's neighbours too.

Legend: B batch, H, W rows and columns, C channels, E inner width. Parameter names are the published ones.
"""

from torch import Tensor, nn


def depthwise(channels: int, kernel: int) -> nn.Conv2d:
    """A convolution of odd side within every channel."""
    return nn.Conv2d(channels, channels, kernel, padding=(kernel - 1) // 2, groups=channels)


class DepthwiseConv(nn.Module):
    """GELU of a depthwise convolution, (B, H, W, E) to (B, H, W, E)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Sequential(depthwise(channels, kernel), nn.GELU())

    def forward(self, x_BHWE: Tensor) -> Tensor:
        return self.depthwise_conv(x_BHWE.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvFFN(nn.Module):
    """Linear, GELU, plus a depthwise convolution of it, Linear. (B, H, W, C) to (B, H, W, C)."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(channels, hidden), nn.GELU()
        self.dwconv = DepthwiseConv(hidden, kernel)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        y_BHWE = self.act(self.fc1(x_BHWC))
        return self.fc2(y_BHWE + self.dwconv(y_BHWE))


class SpatialGate(nn.Module):
    """One half of the channels times a depthwise convolution of the other, (B, H, W, E) to (B, H, W, E / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(channels), depthwise(channels, 5)  # 5 whatever is asked for, as published

    def forward(self, x_BHWE: Tensor) -> Tensor:
        a, b = x_BHWE.chunk(2, dim=-1)
        return a * self.conv(self.norm(b).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GatedFFN(nn.Module):
    """Linear, GELU, spatial gate, Linear. (B, H, W, C) to (B, H, W, C).

    Raises:
        ValueError: the inner width is odd.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        if hidden % 2:
            raise ValueError(f"mlp_ratio: a gated layer needs an even inner width, found {hidden}")
        self.fc1, self.act = nn.Linear(channels, hidden), nn.GELU()
        self.sg = SpatialGate(hidden // 2)
        self.fc2 = nn.Linear(hidden // 2, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(self.sg(self.act(self.fc1(x_BHWC))))


FFNS = {"conv": ConvFFN, "gated": GatedFFN}


def make_ffn(kind: str, channels: int, hidden: int, kernel: int) -> nn.Module:
    """A layer by its name in `FFNS`; `kernel` is the side of the convolution in 'conv', that in 'gated' is always 5.

    Raises:
        ValueError: the convolution's side is even.
    """
    if kernel % 2 == 0:
        raise ValueError(f"convffn_kernel_size: expected an odd number, found {kernel}")
    return ConvFFN(channels, hidden, kernel) if kind == "conv" else GatedFFN(channels, hidden)
