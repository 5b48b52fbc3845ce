"""FusionMamba's changes of scale (arXiv 2404.07932, figure 2): half the size, twice the width, and back."""

from torch import Tensor, nn


class Halving(nn.Module):
    """Strided 2 x 2 convolution and LeakyReLU, (B, C, H, W) to (B, C', H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(in_channels, out_channels, 2, stride=2), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


class Doubling(nn.Module):
    """Transposed 2 x 2 convolution, a skip added, separable convolution: (B, C, H, W) to (B, C', 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2), nn.LeakyReLU())
        self.conv = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels),
            nn.Conv2d(out_channels, out_channels, 1),
            nn.LeakyReLU(),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`skip`: (B, C', 2 H, 2 W)."""
        return self.conv(self.up(x) + skip)
