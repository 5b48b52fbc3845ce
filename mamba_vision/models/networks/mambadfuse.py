"""MambaDFuse (Li et al., arXiv 2404.08406): one image out of two of the same scene by different sensors.

Infrared and visible luminance, or MRI and CT, PET or SPECT. Features of each image, an exchange of channels, five
blocks that read both, reconstruction. Legend: B batch, c channels of an image, C features, H, W rows and columns,
L = H * W tokens, row by row.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import per_axis
from mamba_vision.models.layers.restoration_frame import RGB_MEAN
from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.models.mixers.multi_input import MultiInputMamba
from mamba_vision.registry import MODELS

# The four published models differ in their weights alone.
_PUBLISHED = dict(in_channels=1, embed_dim=60)
ARCHS = {
    "vif": _PUBLISHED,
    "ct_mri": _PUBLISHED,
    "pet_mri": _PUBLISHED,
    "spect_mri": _PUBLISHED,
    # for tests and demonstrations
    "tiny": dict(in_channels=1, embed_dim=8, extraction_depth=1, fusion_depth=1, reconstruction_depth=1),
}
PARAMETERS = dict.fromkeys(("vif", "ct_mri", "pet_mri", "spect_mri"), 1_347_271)
# Published norms lie one module deeper.
NORM_RENAMES = (("norm*.body.*", "norm*.*"), ("**.norm*.body.*", "**.norm*.*"))

_PARTS = ("extraction", "fusion", "reconstruction")
Tokens = tuple[Tensor, Tensor]


@MODELS.register_module()
class MambaDFuse(Network):
    """Fuses two images; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings below.
        in_channels: c, 1 for luminance (all published weights) or 3.
        embed_dim: width C of the tokens, at least 4.
        extraction_depth: Mamba blocks of each image.
        fusion_depth: blocks that read both images.
        reconstruction_depth: Mamba blocks of the fused image.
        img_range: factor on the values inside.
        ape: learned positions added to the first tokens of both images, which fixes their size to `img_size`; all
            published weights are without.
        img_size: rows and columns of these positions, a number or two.
        patch_norm: LayerNorm wherever maps become tokens; all published weights are with.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Shape:
        two images (B, c, H, W) in [0, 1] to (B, c, H, W), not clamped. Any size works, without padding.

    Raises:
        ValueError: a setting is missing, unknown or has a bad value.
    """

    img_size = (128, 128)  # of published training
    published_renames = (
        ("patch_embed.norm.*", "token_norm.*"),
        *((f"M3_block{k + 1}.**", f"deep_fusion.{k}.**") for k in range(5)),
        *NORM_RENAMES,
        ("deep_fusion.*.multi_modal_mamba_block.**", "deep_fusion.*.mixer.**"),
    )

    def __init__(
        self,
        arch: str | dict | None = None,
        in_channels: int | None = None,
        embed_dim: int | None = None,
        extraction_depth: int | None = None,
        fusion_depth: int | None = None,
        reconstruction_depth: int | None = None,
        img_range: float | None = None,
        ape: bool | None = None,
        img_size: int | Sequence[int] | None = None,
        patch_norm: bool | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            in_channels=in_channels, embed_dim=embed_dim, extraction_depth=extraction_depth, fusion_depth=fusion_depth,
            reconstruction_depth=reconstruction_depth, img_range=img_range, ape=ape, img_size=img_size,
            patch_norm=patch_norm,
        )  # fmt: skip
        defaults = dict(
            in_channels=1, extraction_depth=8, fusion_depth=5, reconstruction_depth=8, img_range=1.0, ape=False,
            img_size=128, patch_norm=True,
        )  # fmt: skip
        s = arch_settings("MambaDFuse", ARCHS, arch, given, defaults)
        if s["in_channels"] not in (1, 3):
            raise ValueError(f"in_channels: expected 1 or 3, found {s['in_channels']!r}")
        for name, least in (("embed_dim", 4), *((f"{part}_depth", 1) for part in _PARTS)):
            if not isinstance(s[name], int) or s[name] < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, found {s[name]!r}")
        self.in_channels, self.img_range, width = s["in_channels"], float(s["img_range"]), s["embed_dim"]
        mean = torch.tensor(RGB_MEAN if self.in_channels == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)  # checkpoints have none

        def conv(before: int, behind: int) -> nn.Conv2d:
            return nn.Conv2d(before, behind, 3, padding=1)

        def blocks(depth: int) -> nn.ModuleList:
            return nn.ModuleList(MambaBlock(width) for _ in range(depth))

        self.act = nn.LeakyReLU(0.2)
        self.low_level_feature_extraction1 = conv(self.in_channels, width // 2)
        self.low_level_feature_extraction2 = conv(width // 2, width)
        self.token_norm = nn.LayerNorm(width) if s["patch_norm"] else nn.Identity()  # one, wherever maps become tokens
        self.position_grid = per_axis("img_size", s["img_size"], 2) if s["ape"] else None
        if self.position_grid is not None:
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, prod(self.position_grid), width))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.high_level_feature_extraction1 = blocks(s["extraction_depth"])
        self.high_level_feature_extraction2 = blocks(s["extraction_depth"])
        self.channel_exchange1, self.channel_exchange2 = ExchangeBlock(width), ExchangeBlock(width)
        self.shallow_fusion1, self.shallow_fusion2 = conv(2 * width, width), conv(2 * width, width)
        self.deep_fusion = nn.ModuleList(DeepFusionBlock(width) for _ in range(s["fusion_depth"]))
        self.feature_re = blocks(s["reconstruction_depth"])
        self.conv_last1, self.conv_last2 = conv(width, width // 2), conv(width // 2, width // 4)
        self.conv_last3 = conv(width // 4, self.in_channels)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The fused image (B, c, H, W).

        Args:
            first: infrared image, or MRI.
            second: visible image, or CT, PET or SPECT: the one that brings colour, if any.

        Raises:
            ValueError: wrong number of axes or channels, or images of different shapes.
        """
        for name, image in (("first", first), ("second", second)):
            if image.dim() != 4 or image.shape[1] != self.in_channels or 0 in image.shape[2:]:
                found = tuple(image.shape)
                raise ValueError(f"{name}: found shape {found}, expected (batch, {self.in_channels}, height, width)")
        if first.shape != second.shape:
            raise ValueError(f"second: found shape {tuple(second.shape)}, expected that of first, {tuple(first.shape)}")
        mean = self.mean.to(first.dtype)
        fused = self.reconstruct(self.fuse(*((image - mean) * self.img_range for image in (first, second))))
        return fused / self.img_range + mean

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """Normalized images (B, c, H, W) to their fused features (B, C, H, W)."""
        size = tuple(first.shape[2:])
        one, two = (self._tokens(self._shallow_features(image)) for image in (first, second))
        if self.position_grid is not None:
            if size != self.position_grid:
                raise ValueError(f"first: found {size} pixels, expected {self.position_grid}, the learned positions'")
            one, two = one + self.absolute_pos_embed, two + self.absolute_pos_embed
        one = through(self.high_level_feature_extraction1, one)
        two = through(self.high_level_feature_extraction2, two)
        for exchange in (self.channel_exchange1, self.channel_exchange2):
            one, two = exchange(one, two)
        # Of each image, only what its last mixer says goes on, not the sum of all before.
        one, two = to_map(one[0], size), to_map(two[0], size)
        one = self.shallow_fusion1(torch.cat([one, two], dim=1)) + one
        two = self.shallow_fusion2(torch.cat([two, one], dim=1)) + two
        fused = through(self.deep_fusion, self._tokens((one + two) / 2), self._tokens(one), self._tokens(two), size)
        return to_map(fused[0], size)

    def reconstruct(self, features: Tensor) -> Tensor:
        """Fused features (B, C, H, W) to the normalized image (B, c, H, W)."""
        features = to_map(through(self.feature_re, self._tokens(features))[0], tuple(features.shape[2:]))
        for convolution in (self.conv_last1, self.conv_last2):
            features = self.act(convolution(features))
        return self.conv_last3(features)

    def input_shapes(self, size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """Shapes of the two images, without the batch, of `size` rows and columns."""
        return ((self.in_channels, *size),) * 2

    def _shallow_features(self, image: Tensor) -> Tensor:
        return self.act(self.low_level_feature_extraction2(self.act(self.low_level_feature_extraction1(image))))

    def _tokens(self, features: Tensor) -> Tensor:
        return self.token_norm(features.flatten(2).transpose(1, 2))


def to_map(tokens_BLC: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, L, C) to (B, C, H, W)."""
    return tokens_BLC.transpose(1, 2).unflatten(2, size)


def through(blocks: Sequence[nn.Module], tokens_BLC: Tensor, *more: Tensor | tuple[int, int]) -> Tokens:
    """Tokens through blocks that carry a residual beside them, zero at first: (last output, residual).

    The last output is not in the residual yet.
    """
    carried = (tokens_BLC, torch.zeros_like(tokens_BLC))
    for block in blocks:
        carried = block(*carried, *more)
    return carried


class MambaBlock(nn.Module):
    """(x, residual) to (mixer(norm(residual + x)), residual + x), tokens (B, L, C)."""

    published_renames = NORM_RENAMES

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.encoder, self.norm = Mamba(dim), nn.LayerNorm(dim)

    def forward(self, x_BLC: Tensor, residual_BLC: Tensor) -> Tokens:
        residual_BLC = x_BLC + residual_BLC
        return self.encoder(self.norm(residual_BLC)), residual_BLC


class ExchangeBlock(nn.Module):
    """A block for each image, between whose norms and mixers the images swap every second channel."""

    published_renames = NORM_RENAMES

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.I1encoder, self.I2encoder = Mamba(dim), Mamba(dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, first: Tokens, second: Tokens) -> tuple[Tokens, Tokens]:
        """`first`, `second`: tokens and residual of an image, (B, L, C) each."""
        residual1, residual2 = sum(first), sum(second)
        normed1, normed2 = self.norm1(residual1), self.norm2(residual2)
        swapped = torch.arange(normed1.shape[-1], device=normed1.device) % 2 == 0
        x1, x2 = torch.where(swapped, normed2, normed1), torch.where(swapped, normed1, normed2)
        return (self.I1encoder(x1), residual1), (self.I2encoder(x2), residual2)


class DeepFusionBlock(nn.Module):
    """The published M3 block: fused tokens and those of both images through one mixer, then a depthwise convolution.

    Every norm is applied twice, as published.
    """

    published_renames = (("multi_modal_mamba_block.**", "mixer.**"), *NORM_RENAMES)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer = MultiInputMamba(dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(
        self, x_BLC: Tensor, residual_BLC: Tensor, first_BLC: Tensor, second_BLC: Tensor, size: tuple[int, int]
    ) -> Tokens:
        """Fused tokens and their residual, from these and the tokens of both images, (B, L, C) each."""
        residual_BLC = x_BLC + residual_BLC
        read = ((self.norm1, residual_BLC), (self.norm2, second_BLC), (self.norm3, first_BLC))
        mixed = to_map(self.mixer(*(norm(norm(tokens)) for norm, tokens in read)), size)
        return (self.dwconv(mixed) + mixed).flatten(2).transpose(1, 2), residual_BLC
