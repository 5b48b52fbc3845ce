"""U-Mamba (Ma, Li and Wang, arXiv 2401.04722): nnU-Net's residual U-Net with Mamba at the bottleneck or in the encoder.

The published repository has four networks, which differ where one would not expect it: the 2-D ones leave out the
finest skip, and the 2-D 'enc' has its Mamba layers at every second stage only. They are one class here; `_mamba_stages`
and `Decoder.joins` hold the differences. Names of weights are the published ones.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import CONV, check_dims, check_input, per_axis
from mamba_vision.models.layers.grid_mamba import GridMamba
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size
from mamba_vision.models.layers.residual import init_leaky_convs_, residual_stage
from mamba_vision.registry import MODELS

_BODY = dict(
    spatial_dims=3,
    features=(32, 64, 128, 256, 320, 320),
    kernel_sizes=((1, 3, 3), *((3, 3, 3),) * 5),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    in_channels=1,
    num_classes=14,
)
# What nnU-Net planned for the paper's data sets; 'tiny' ones are for tests and demonstrations.
ARCHS = {
    "abdomen_ct": dict(_BODY, patch_size=(40, 224, 192)),
    "abdomen_mr": dict(_BODY, patch_size=(48, 160, 224)),
    "endoscopy": dict(
        spatial_dims=2,
        features=(32, 64, 128, 256, 512, 512, 512),
        strides=(1, 2, 2, 2, 2, 2, 2),
        in_channels=3,
        num_classes=8,
        patch_size=(384, 640),
    ),
    "microscopy": dict(
        spatial_dims=2,
        features=(32, 64, 128, 256, 512, 512, 512, 512),
        strides=(1, 2, 2, 2, 2, 2, 2, 2),
        in_channels=3,
        num_classes=3,
        patch_size=(512, 512),
    ),
    "tiny": dict(
        spatial_dims=3, features=(8, 16, 24), strides=(1, 2, 2), in_channels=1, num_classes=3, patch_size=(16, 16, 16)
    ),
    "tiny_2d": dict(
        spatial_dims=2, features=(8, 16, 24), strides=(1, 2, 2), in_channels=3, num_classes=3, patch_size=(32, 32)
    ),
}


@MODELS.register_module()
class UMamba(Network):
    """Residual U-Net with Mamba layers, for images and volumes.

    Args:
        arch: A variant of `ARCHS`, or a dict of the settings below; settings given beside it go before it.
        spatial_dims: 2 or 3.
        placement: 'bot', one Mamba layer at the bottleneck, or 'enc', Mamba layers in the encoder.
        in_channels, num_classes: Channels in, logits out.
        features: Width of every stage, finest first.
        kernel_sizes: One kernel a stage, an integer or one integer an axis; default 3.
        strides: One stride a stage; the first is 1.
        n_blocks: Residual blocks of every encoder stage, a number or one number a stage (published: 2). Deep stages
            have one whatever is asked, as the published constructor has it.
        n_blocks_decoder: The same for the decoder, deepest first; its fine stages have one.
        patch_size: Size of the training patch. 'enc' needs it: where a stage has no more voxels than channels, the
            channels become the tokens and the voxels the width, so that the network takes this size only.
        deep_supervision: Whether `forward` returns the logits of every decoder stage; may be switched at any time.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Raises:
        ValueError: a setting is missing, unknown or contradicts another.
    """

    # Second names of the same tensors: the decoder holds the encoder, and blocks hold their layers in a list too.
    published_ignored = ("decoder.encoder.**", "**.all_modules.**")
    published_forms: ClassVar = {"bot": {"placement": "bot"}, "enc": {"placement": "enc"}}

    def __init__(
        self,
        arch: str | dict | None = None,
        spatial_dims: int | None = None,
        placement: str = "bot",
        in_channels: int | None = None,
        num_classes: int | None = None,
        features: Sequence[int] | None = None,
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        n_blocks: int | Sequence[int] | None = None,
        n_blocks_decoder: int | Sequence[int] | None = None,
        patch_size: Sequence[int] | None = None,
        deep_supervision: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            num_classes=num_classes,
            features=features,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_blocks=n_blocks,
            n_blocks_decoder=n_blocks_decoder,
            patch_size=patch_size,
        )
        defaults = dict(spatial_dims=3, kernel_sizes=None, n_blocks=2, n_blocks_decoder=2, patch_size=None)
        s = arch_settings("UMamba", ARCHS, arch, given, defaults)
        dims, widths = check_dims(s["spatial_dims"]), tuple(s["features"])
        stages = len(widths)
        kernels = [per_axis("kernel_sizes", k, dims) for k in s["kernel_sizes"] or (3,) * stages]
        steps = [per_axis("strides", n, dims) for n in s["strides"]]
        for name, values in (("kernel_sizes", kernels), ("strides", steps)):
            if len(values) != stages:
                raise ValueError(f"{name} must have one entry a stage: {stages} as features has, found {len(values)}")
        if placement not in ("bot", "enc"):
            raise ValueError(f"placement must be 'bot' or 'enc', found {placement!r}")
        if stages < 2 or max(steps[0]) > 1:
            raise ValueError(f"strides must begin with 1 and go on for at least one more stage, found {s['strides']}")
        blocks = _per_stage("n_blocks", s["n_blocks"], stages)
        blocks_up = _per_stage("n_blocks_decoder", s["n_blocks_decoder"], stages - 1)
        blocks = [n if i < ceil(stages / 2) else 1 for i, n in enumerate(blocks)]
        blocks_up = [n if j < ceil((stages - 1) / 2 + 0.5) else 1 for j, n in enumerate(blocks_up)]

        self.spatial_dims, self.placement, self.deep_supervision = dims, placement, deep_supervision
        self.in_channels, self.num_classes = s["in_channels"], s["num_classes"]
        self.cumulative_strides = [tuple(prod(axis) for axis in zip(*steps[: i + 1])) for i in range(stages)]
        self.patch_size, self.fixed_size = None, False
        tokens = None
        if placement == "enc":
            if s["patch_size"] is None:
                raise ValueError("patch_size must be given for placement 'enc': the width of its layers depends on it")
            self.patch_size = per_axis("patch_size", s["patch_size"], dims)
            tokens = self._mamba_stages(widths)

        self.encoder = Encoder(dims, self.in_channels, widths, kernels, steps, blocks, tokens)
        self.mamba_layer = GridMamba(widths[-1]) if placement == "bot" else None
        self.decoder = Decoder(dims, widths, kernels, steps, blocks_up, self.num_classes)
        init_leaky_convs_(self)

    def _mamba_stages(self, widths: Sequence[int]) -> list[int | None]:
        """A stage without a Mamba layer: None; with voxels as tokens: 0; with channels: the voxels, their width."""
        stages, found = len(widths), []
        for stage, (width, stride) in enumerate(zip(widths, self.cumulative_strides)):
            voxels = prod(n // m for n, m in zip(self._padded(self.patch_size), stride))
            if self.spatial_dims == 2 and stage % 2 == stages % 2:
                found.append(None)
            elif voxels <= width:
                found.append(voxels)
                self.fixed_size = True
            else:
                found.append(0)
        return found

    def _padded(self, size: Sequence[int]) -> tuple[int, ...]:
        return padded_size(size, self.cumulative_strides[-1])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of images or volumes (B, in_channels, *S).

        Returns:
            (B, num_classes, *S); with `deep_supervision` a list of them, finest first, the logits of stage i at
            ceil(S / stride). Sizes that the strides do not divide are padded at their far ends by repeated edges.

        Raises:
            ValueError: wrong number of axes or channels, or a size other than `patch_size` where that is fixed.
        """
        size = tuple(x.shape[2:])
        check_input(x, self.spatial_dims, self.in_channels)
        padded = self._padded(size)
        if self.patch_size and self.fixed_size and padded != self._padded(self.patch_size):
            raise ValueError(
                f"x: this network takes its patch_size {self.patch_size} only, because its deepest stages have "
                f"channels as tokens; found {size}. Cut the input into windows of that size, or use placement='bot'"
            )
        skips = self.encoder(pad_to(x, padded))
        if self.mamba_layer is not None:
            skips[-1] = self.mamba_layer(skips[-1])
        logits = self.decoder(skips, every_stage=self.deep_supervision)
        sizes = [[-(-n // m) for n, m in zip(size, stride)] for stride in self.cumulative_strides]
        logits = [crop_to(y, at) for y, at in zip(logits, sizes)]
        return logits if self.deep_supervision else logits[0]


class Encoder(nn.Module):
    """Stem, then stages of residual blocks, some of them followed by a Mamba layer; every stage's result is a skip."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        widths: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        blocks: Sequence[int],
        tokens: Sequence[int | None] | None,
    ) -> None:
        super().__init__()
        self.stem = residual_stage(dims, in_channels, widths[0], kernels[0], 1, blocks[0])
        before = (widths[0], *widths)
        self.stages = nn.ModuleList(
            residual_stage(dims, before[i], widths[i], kernels[i], strides[i], blocks[i]) for i in range(len(widths))
        )
        self.mamba_layers = None
        if tokens is not None:
            self.mamba_layers = nn.ModuleList(
                nn.Identity() if voxels is None else GridMamba(voxels or width, channel_token=voxels > 0)
                for width, voxels in zip(widths, tokens)
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> the maps of all stages, finest first."""
        x, skips = self.stem(x), []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if self.mamba_layers is not None:
                x = self.mamba_layers[i](x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    """From the bottleneck up: nearest up-sampling, skip, residual blocks, and a 1x1 convolution to logits a stage."""

    def __init__(
        self,
        dims: int,
        widths: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        blocks: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        levels = range(len(widths) - 2, -1, -1)  # encoder stages whose size is restored, deepest first
        self.factors = [tuple(float(n) for n in strides[i + 1]) for i in levels]
        # The published 2-D networks do not join the finest skip.
        self.joins = [dims == 3 or i > 0 for i in levels]
        self.upsample_layers = nn.ModuleList(UpsampleConv(dims, widths[i + 1], widths[i]) for i in levels)
        self.stages = nn.ModuleList(
            residual_stage(dims, widths[i] * (2 if join else 1), widths[i], kernels[i], 1, n)
            for i, join, n in zip(levels, self.joins, blocks)
        )
        self.seg_layers = nn.ModuleList(CONV[dims](widths[i], classes, 1) for i in levels)

    def forward(self, skips: list[Tensor], every_stage: bool) -> list[Tensor]:
        """Logits finest first, of every stage or of the finest alone."""
        x, logits = skips[-1], []
        for j, stage in enumerate(self.stages):
            x = self.upsample_layers[j](x, self.factors[j])
            if self.joins[j]:
                x = torch.cat([x, skips[-2 - j]], dim=1)
            x = stage(x)
            if every_stage or j == len(self.stages) - 1:
                logits.append(self.seg_layers[j](x))
        return logits[::-1]


class UpsampleConv(nn.Module):
    """Nearest up-sampling and a 1x1 convolution, which commute: the convolution runs first, on the fewer voxels."""

    def __init__(self, dims: int, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = CONV[dims](cin, cout, 1)

    def forward(self, x: Tensor, factors: tuple[float, ...]) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=list(factors), mode="nearest")


def _per_stage(name: str, value: int | Sequence[int], stages: int) -> list[int]:
    """One number of blocks a stage (a copy: the caller's list stays as it is)."""
    values = [value] * stages if isinstance(value, int) else list(value)
    if len(values) != stages or not all(isinstance(n, int) and n > 0 for n in values):
        raise ValueError(f"{name} must be a positive integer or {stages} of them, found {value!r}")
    return values
