"""VMamba's patch embeddings and downsamplings (arXiv 2401.10166, figure 3), channels-last.

Indices inside the Sequentials are those of published checkpoints. Legend: B batch, C channels, H, W rows and columns.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mamba_vision.models.layers.channels_last import ToChannelsFirst, ToChannelsLast, channels_last_norm
from mamba_vision.models.layers.fused_norm import norm_tokens_by
from mamba_vision.models.layers.recompute import recomputed


def patch_embed_v1(in_channels: int, channels: int, patch_size: int, norm: str | None) -> nn.Sequential:
    """Patches that do not overlap; what is left over at the right and bottom is dropped.

    Shape:
        (B, in_channels, H, W) to (B, H // patch_size, W // patch_size, channels).
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, patch_size, patch_size),
        ToChannelsLast(),
        channels_last_norm(norm, channels) if norm else nn.Identity(),
    )


def patch_embed_v2(in_channels: int, channels: int, patch_size: int, norm: str | None) -> nn.Sequential:
    """Two overlapping convolutions, each by half of the patch size's stride.

    Shape:
        (B, in_channels, H, W) to (B, H', W', channels), for patches of 4: n -> (n - 1) // 2 + 1, twice.
    """
    stride, kernel = patch_size // 2, patch_size // 2 + 1
    return OverlappingPatches(
        nn.Conv2d(in_channels, channels // 2, kernel, stride, padding=1),
        ToChannelsLast(),
        channels_last_norm(norm, channels // 2) if norm else nn.Identity(),
        ToChannelsFirst(),
        nn.GELU(),
        nn.Conv2d(channels // 2, channels, kernel, stride, padding=1),
        ToChannelsLast(),
        channels_last_norm(norm, channels) if norm else nn.Identity(),
    )


class OverlappingPatches(nn.Sequential):
    """The layers of `patch_embed_v2`; what the second convolution reads is large, and computed again in backward."""

    def forward(self, x: Tensor) -> Tensor:
        x_BHWC = self[1](self[0](x))
        again = not isinstance(self[2], nn.BatchNorm2d)  # whose statistics would move twice
        x_BHWC = self[6](recomputed(self._second, x_BHWC) if again else self._second(x_BHWC))
        return self[7](x_BHWC)

    def _second(self, x_BHWC: Tensor) -> Tensor:
        return self[5](self[4](self[3](norm_tokens_by(self[2], x_BHWC, for_linear=True))))


class PatchMerging(nn.Module):
    """Downsampling v1: the four pixels of each 2 x 2 block side by side, norm, Linear.

    Odd maps get a row or column of zeros at the bottom or right.

    Shape:
        (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), out_channels).
    """

    def __init__(self, channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.norm = channels_last_norm(norm, 4 * channels)
        self.reduction = nn.Linear(4 * channels, out_channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        height, width = x_BHWC.shape[1:3]
        x_BHWC = F.pad(x_BHWC, (0, 0, 0, width % 2, 0, height % 2))
        corners = [x_BHWC[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


def strided_downsample(channels: int, out_channels: int, norm: str, kernel: int) -> nn.Sequential:
    """Downsampling v2 (kernel 2, sizes rounded down) and v3 (kernel 3, sizes rounded up): strided convolution and norm.

    Shape:
        (B, H, W, C) to (B, H / 2, W / 2, out_channels).
    """
    return nn.Sequential(
        ToChannelsFirst(),
        nn.Conv2d(channels, out_channels, kernel, stride=2, padding=(kernel - 1) // 2),
        ToChannelsLast(),
        channels_last_norm(norm, out_channels),
    )


def make_patch_embed(version: str, in_channels: int, channels: int, patch_size: int, norm: str | None) -> nn.Module:
    """A patch embedding by its published version, 'v1' or 'v2'.

    Raises:
        ValueError: another version.
    """
    versions = {"v1": patch_embed_v1, "v2": patch_embed_v2}
    if version not in versions:
        raise ValueError(f"patch_embed: found {version!r}, expected 'v1' or 'v2'")
    return versions[version](in_channels, channels, patch_size, norm)


def make_downsample(version: str, channels: int, out_channels: int, norm: str) -> nn.Module:
    """A downsampling by its published version, 'v1', 'v2' or 'v3'; 'none' keeps the map as it is.

    Raises:
        ValueError: another version.
    """
    if version == "v1":
        return PatchMerging(channels, out_channels, norm)
    if version in ("v2", "v3"):
        return strided_downsample(channels, out_channels, norm, kernel={"v2": 2, "v3": 3}[version])
    if version == "none":
        return nn.Identity()
    raise ValueError(f"downsample: found {version!r}, expected 'v1', 'v2', 'v3' or 'none'")
