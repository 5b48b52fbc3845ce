"""SegMamba (Xing et al., arXiv 2401.13560): a Mamba encoder over volumes with a convolutional UNETR decoder.

Names of weights are the published ones; the decoder's blocks are MONAI's. 3-D only: the third scan crosses slices.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import UnetOutBlock
from torch import Tensor, nn

from mamba_vision.kernels import instance_norm
from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.channels_last import volume_layout
from mamba_vision.models.layers.fused_norm import norm_tokens_by
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size
from mamba_vision.models.layers.recompute import recomputed
from mamba_vision.models.layers.unetr_blocks import SkipBlock, UpBlock
from mamba_vision.models.layers.volume_convs import pointwise
from mamba_vision.models.mixers.tri_oriented import TriOrientedMamba
from mamba_vision.registry import MODELS

_BODY = dict(depths=(2, 2, 2, 2), feat_size=(48, 96, 192, 384), hidden_size=768)
ARCHS = {
    "brats2023": dict(_BODY, in_channels=4, num_classes=4),
    "default": dict(_BODY, in_channels=1, num_classes=13),  # what the published constructor makes by itself
    "tiny": dict(depths=(1, 1, 1, 1), feat_size=(8, 16, 24, 32), hidden_size=32, in_channels=1, num_classes=3),
}
STRIDE = 16


@MODELS.register_module()
class SegMamba(Network):
    """Four-stage encoder of tri-oriented Mamba layers, whose side outputs a UNETR decoder joins.

    Args:
        arch: A variant of `ARCHS`, or a dict of the settings below; settings given beside it go before it.
        in_channels, num_classes: Channels in, logits out.
        depths: Mamba layers of every stage.
        feat_size: Width of every stage.
        hidden_size: Width of the deepest decoder map.
        slices: Runs of every stage's third scan order, see `TriOrientedMamba`. The published numbers are slices of a
            128 x 128 x 128 crop and stay as they are for other sizes; None takes real slices.
        norm_name: MONAI's norm of the decoder, a name or (name, arguments).
        res_block: Residual decoder blocks; False: two plain convolutions.
        spatial_dims: 3; given for uniformity with the other networks.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Attributes:
        deep_supervision: False; the network has one output.

    Raises:
        ValueError: a setting is missing, unknown or contradicts another.
    """

    deep_supervision = False

    def __init__(
        self,
        arch: str | dict | None = None,
        in_channels: int | None = None,
        num_classes: int | None = None,
        depths: Sequence[int] | None = None,
        feat_size: Sequence[int] | None = None,
        hidden_size: int | None = None,
        slices: Sequence[int | None] | None = None,
        norm_name: str | tuple | None = None,
        res_block: bool | None = None,
        spatial_dims: int = 3,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            in_channels=in_channels,
            num_classes=num_classes,
            depths=depths,
            feat_size=feat_size,
            hidden_size=hidden_size,
            slices=slices,
            norm_name=norm_name,
            res_block=res_block,
        )
        s = arch_settings(
            "SegMamba", ARCHS, arch, given, dict(_BODY, slices=(64, 32, 16, 8), norm_name="instance", res_block=True)
        )
        if spatial_dims != 3:
            raise ValueError(f"spatial_dims must be 3 for SegMamba, found {spatial_dims}")
        for name in ("depths", "feat_size", "slices"):
            if len(s[name]) != 4:
                raise ValueError(f"{name} must have 4 entries, one a stage, found {s[name]}")
        self.in_channels, self.num_classes = s["in_channels"], s["num_classes"]
        f0, f1, f2, f3 = s["feat_size"]
        hidden, style = s["hidden_size"], dict(norm_name=s["norm_name"], res_block=s["res_block"])

        self.vit = MambaEncoder(self.in_channels, s["depths"], s["feat_size"], s["slices"])
        # Every skip is widened to the next stage's width before it joins.
        self.encoder1 = SkipBlock(self.in_channels, f0, **style)
        self.encoder2 = SkipBlock(f0, f1, **style)
        self.encoder3 = SkipBlock(f1, f2, **style)
        self.encoder4 = SkipBlock(f2, f3, **style)
        self.encoder5 = SkipBlock(f3, hidden, **style)
        self.decoder5 = UpBlock(hidden, f3, **style)
        self.decoder4 = UpBlock(f3, f2, **style)
        self.decoder3 = UpBlock(f2, f1, **style)
        self.decoder2 = UpBlock(f1, f0, **style)
        self.decoder1 = SkipBlock(f0, f0, **style)
        self.out = UnetOutBlock(3, f0, self.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, D, H, W) of volumes (B, in_channels, D, H, W) of any size.

        Sizes that 16 does not divide are padded at their far ends by repeated edges.

        Raises:
            ValueError: wrong number of axes or channels.
        """
        if x.dim() != 5 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must be (batch, {self.in_channels}, D, H, W), found shape {tuple(x.shape)}")
        size = tuple(x.shape[2:])
        x = volume_layout(pad_to(x, padded_size(size, (STRIDE,) * 3)))
        s0, s1, s2, s3 = self.vit(x)
        y = self.encoder5(s3)
        del s3
        for up, skip, side in (
            (self.decoder5, self.encoder4, s2),
            (self.decoder4, self.encoder3, s1),
            (self.decoder3, self.encoder2, s0),
            (self.decoder2, self.encoder1, x),
        ):
            if torch.is_grad_enabled():
                y = up(y, skip(side))
            else:
                y = up.join(y, skip(side))
                y = up.conv_block(y)
        return crop_to(pointwise(self.out.conv.conv, self.decoder1(y)), size)


class MambaEncoder(nn.Module):
    """Stem and three halvings, each followed by a spatial convolution block and Mamba layers; a side output a stage."""

    def __init__(
        self, in_channels: int, depths: Sequence[int], widths: Sequence[int], slices: Sequence[int | None]
    ) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv3d(in_channels, widths[0], 7, stride=2, padding=3))
        halvings = (
            nn.Sequential(nn.InstanceNorm3d(narrow), nn.Conv3d(narrow, wide, 2, stride=2))
            for narrow, wide in pairwise(widths)
        )
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        self.gscs = nn.ModuleList(SpatialConv(width) for width in widths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(VolumeMambaLayer(width, runs) for _ in range(depth)))
            for depth, width, runs in zip(depths, widths, slices)
        )
        self.mlps = nn.ModuleList(ChannelMlp(width) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) -> side outputs at strides 2, 4, 8 and 16; what goes on to the next stage bypasses them."""
        sides = []
        for down, conv, stage, mlp in zip(self.downsample_layers, self.gscs, self.stages, self.mlps):
            x = stage(conv(down[-1](x)))
            x = instance_norm(x)  # the side's norm and that of the next halving, `down[0]`
            sides.append(mlp(x))
        return tuple(sides)


class SpatialConv(nn.Module):
    """The published gated spatial convolution, GSC, which adds its two branches and gates nothing.

    (B, C, D, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj3 = nn.Conv3d(channels, channels, 1)
        self.proj4 = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = normed_relu(recomputed(self._second, self.proj(x)))
        narrow = normed_relu(pointwise(self.proj3, x))
        return x + normed_relu(pointwise(self.proj4, wide + narrow))

    def _second(self, x: Tensor) -> Tensor:
        return self.proj2(normed_relu(x))


def normed_relu(x: Tensor) -> Tensor:
    """ReLU of a convolution's result normed an instance and channel, without parameters."""
    return instance_norm(x, slope=0.0, overwrite=True)


class VolumeMambaLayer(nn.Module):
    """LayerNorm and tri-oriented Mamba over the voxels, plus the input. (B, C, D, H, W) -> the same."""

    def __init__(
        self, dim: int, slices: int | None = None, d_state: int = 16, d_conv: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mamba = TriOrientedMamba(dim, slices, d_state, d_conv, expand)

    def forward(self, x: Tensor) -> Tensor:
        normed = norm_tokens_by(self.norm, x.flatten(2).transpose(1, 2), for_linear=True)
        tokens = self.mamba(normed, grid=tuple(x.shape[2:]))
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class ChannelMlp(nn.Module):
    """Two 1x1x1 convolutions with GELU between. (B, C, D, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(channels, 2 * channels, 1)
        self.fc2 = nn.Conv3d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(self.fc2, F.gelu(pointwise(self.fc1, x)))
