"""What MambaIR and MambaIRv2 share: shallow features, residual groups of blocks, and a head that makes the image.

The shape is SwinIR's (arXiv 2108.10257). Legend: B batch, H, W rows and columns, C features, s upscale.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamba_vision.models.base import Network
from mamba_vision.models.layers.options import one_of

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K
RESIDUAL_CONVS = ("1conv", "3conv")


def residual_conv(channels: int, kind: str) -> nn.Module:
    """The convolution before a residual sum: '1conv' is one 3 x 3, '3conv' three through a quarter of the width."""
    one_of("resi_connection", kind, RESIDUAL_CONVS)
    if kind == "1conv":
        return nn.Conv2d(channels, channels, 3, padding=1)
    inner = channels // 4
    return nn.Sequential(
        nn.Conv2d(channels, inner, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(inner, inner, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(inner, channels, 3, padding=1),
    )


def pixel_shuffles(channels: int, scale: int) -> nn.Sequential:
    """Convolutions and pixel shuffles that enlarge a map 2, 3, 4, 8 ... times."""
    stages = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    layers: list[nn.Module] = []
    for stage in stages:
        layers += [nn.Conv2d(channels, stage**2 * channels, 3, padding=1), nn.PixelShuffle(stage)]
    return nn.Sequential(*layers)


class PixelShuffleHead(nn.Module):
    """Classic super-resolution: fewer channels, enlargement in steps, last convolution."""

    scales = (2, 3, 4, 8)

    def __init__(self, channels: int, out_channels: int, scale: int, width: int = 64) -> None:
        super().__init__()
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.01))
        self.upsample = pixel_shuffles(width, scale)
        self.conv_last = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        return self.conv_last(self.upsample(self.conv_before_upsample(features)))


class DirectHead(nn.Module):
    """Lightweight super-resolution: one convolution and one pixel shuffle."""

    scales = (2, 3, 4, 8)

    def __init__(self, channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.upsample = nn.Sequential(
            nn.Conv2d(channels, scale**2 * out_channels, 3, padding=1), nn.PixelShuffle(scale)
        )

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        return self.upsample(features)


class NearestHead(nn.Module):
    """Real super-resolution with few artefacts: twice nearest neighbours and a convolution."""

    scales = (4,)

    def __init__(self, channels: int, out_channels: int, scale: int, width: int = 64) -> None:
        super().__init__()

        def conv(count: int = width) -> nn.Conv2d:
            return nn.Conv2d(width, count, 3, padding=1)

        self.conv_before_upsample = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.01))
        self.conv_up1, self.conv_up2, self.conv_hr, self.conv_last = conv(), conv(), conv(), conv(out_channels)
        self.enlarge, self.act = nn.UpsamplingNearest2d(scale_factor=2), nn.LeakyReLU(0.2)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        y = self.conv_before_upsample(features)
        for conv in (self.conv_up1, self.conv_up2):
            y = self.act(conv(self.enlarge(y)))
        return self.conv_last(self.act(self.conv_hr(y)))


class ResidualHead(nn.Module):
    """Denoising and artefact removal: what is to be added to the (normalized) input."""

    scales = (1,)

    def __init__(self, channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.conv_last = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        return image + self.conv_last(features)


HEADS = {
    "pixelshuffle": PixelShuffleHead,
    "pixelshuffledirect": DirectHead,
    "nearest+conv": NearestHead,
    "none": ResidualHead,
}
# The published networks have the first norm and the head's layers under these names.
FRAME_RENAMES = (
    ("patch_embed.norm.*", "first_norm.*"),
    ("conv_before_upsample.**", "head.conv_before_upsample.**"),
    ("upsample.**", "head.upsample.**"),
    ("conv_up*.*", "head.conv_up*.*"),
    ("conv_hr.*", "head.conv_hr.*"),
    ("conv_last.*", "head.conv_last.*"),
)


class ResidualGroup(nn.Module):
    """Blocks and a convolution around which the input is added, (B, H, W, C) to (B, H, W, C).

    Args:
        blocks: modules of (B, H, W, C).
        channels: C.
        resi_connection: one of `RESIDUAL_CONVS`.
        with_cp: keep only the blocks' inputs for the backward pass and compute the blocks again there.
    """

    def __init__(self, blocks: Sequence[nn.Module], channels: int, resi_connection: str, with_cp: bool) -> None:
        super().__init__()
        self.blocks, self.with_cp = nn.ModuleList(blocks), with_cp
        self.conv = residual_conv(channels, resi_connection)

    def forward(self, x_BHWC: Tensor, each: Sequence[tuple[Any, ...]] | None = None) -> Tensor:
        """`each`: further arguments of every block."""
        y_BHWC = x_BHWC
        for block, more in zip(self.blocks, each or [()] * len(self.blocks)):
            if self.with_cp and torch.is_grad_enabled():
                y_BHWC = checkpoint(block, y_BHWC, *more, use_reentrant=False)
            else:
                y_BHWC = block(y_BHWC, *more)
        return x_BHWC + self.conv(y_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class RestorationFrame(Network):
    """Image in, image out: (B, in_channels, H, W) in [0, 1] to (B, in_channels, s * H, s * W).

    Args:
        groups: residual groups.
        in_channels: 3 for RGB, whose mean is taken off before and added again; any other number has none.
        embed_dim: C.
        upscale: s.
        upsampler: one of `HEADS`.
        img_range: factor on the values inside.
        resi_connection: one of `RESIDUAL_CONVS`.
        position_grid: rows and columns of learned positions added to the first tokens, which fix the size of the image
            (as the groups see it); None: none.
        patch_norm: LayerNorm of the first tokens.

    Raises:
        ValueError: an unknown name, or a scale that the head has not.
    """

    def __init__(
        self, groups: Sequence[ResidualGroup], in_channels: int, embed_dim: int, upscale: int, upsampler: str,
        img_range: float, resi_connection: str, init_cfg: dict | list[dict] | None = None,
        position_grid: tuple[int, int] | None = None, patch_norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(init_cfg)
        head = HEADS[one_of("upsampler", upsampler, tuple(HEADS))]
        if upscale not in head.scales:
            raise ValueError(f"upscale: upsampler {upsampler!r} has {head.scales}, found {upscale}")
        self.in_channels, self.upscale, self.img_range = in_channels, upscale, float(img_range)
        mean = torch.tensor(RGB_MEAN if in_channels == 3 else (0.0,) * in_channels).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)  # checkpoints have none
        self.conv_first = nn.Conv2d(in_channels, embed_dim, 3, padding=1)
        self.first_norm = nn.LayerNorm(embed_dim) if patch_norm else nn.Identity()
        self.position_grid = position_grid
        if position_grid is not None:
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, prod(position_grid), embed_dim))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.layers = nn.ModuleList(groups)
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self.head = head(embed_dim, in_channels, upscale)
        self.apply(_init_linear)

    def restore(self, image: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, in_channels, H, W) to (B, in_channels, s * H, s * W); `body` runs the groups on tokens (B, H, W, C).

        Raises:
            ValueError: learned positions are of another size.
        """
        mean = self.mean.to(image.dtype)
        image = (image - mean) * self.img_range
        shallow = self.conv_first(image)
        tokens_BHWC = self.first_norm(shallow.permute(0, 2, 3, 1))
        if self.position_grid is not None:
            tokens_BHWC = tokens_BHWC + self._positions(tokens_BHWC)
        deep_BHWC = self.norm(body(tokens_BHWC))
        features = self.conv_after_body(deep_BHWC.permute(0, 3, 1, 2)) + shallow
        return self.head(features, image) / self.img_range + mean

    def _positions(self, tokens_BHWC: Tensor) -> Tensor:
        grid = tuple(tokens_BHWC.shape[1:3])
        if grid != self.position_grid:
            raise ValueError(f"x: found {grid} pixels, expected {self.position_grid}, those of the learned positions")
        return self.absolute_pos_embed.unflatten(1, grid)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
