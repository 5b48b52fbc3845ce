"""LightM-UNet (Liao et al., arXiv 2403.05246): residual vision Mamba layers down, depthwise convolutions up.

The layers scan in one direction, row by row, whatever their name. Names of weights are the published ones; blocks of
MONAI's SegResNet, on which the published network is built, are MONAI's.
"""

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution, UpSample
from monai.networks.layers.factories import Dropout
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn

from mamba_vision.kernels.operators import without_autocast
from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import MAX_POOL, check_dims, check_input
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size
from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.registry import MODELS

_BLOCKS = dict(blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))
_TINY = dict(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1))
# The published trainer's networks (32 filters), the half-width ones, and tiny ones for tests and demonstrations.
ARCHS = {
    "liver_3d": dict(_BLOCKS, spatial_dims=3, init_filters=32, in_channels=1, num_classes=3),
    "lung_2d": dict(_BLOCKS, spatial_dims=2, init_filters=32, in_channels=3, num_classes=2),
    "liver_3d_f16": dict(_BLOCKS, spatial_dims=3, init_filters=16, in_channels=1, num_classes=3),
    "lung_2d_f16": dict(_BLOCKS, spatial_dims=2, init_filters=16, in_channels=3, num_classes=2),
    "tiny": dict(_TINY, spatial_dims=3, in_channels=1, num_classes=3),
    "tiny_2d": dict(_TINY, spatial_dims=2, in_channels=3, num_classes=3),
}
UPSAMPLE_MODES = ("deconv", "deconvgroup", "nontrainable", "pixelshuffle")


@MODELS.register_module()
class LightMUNet(Network):
    """U-Net of residual vision Mamba layers, for images and volumes.

    Args:
        arch: A variant of `ARCHS`, or a dict of the settings below; settings given beside it go before it.
        spatial_dims: 2 or 3.
        in_channels, num_classes: Channels in, logits out.
        init_filters: Width of the finest level, a multiple of the norm's groups (8); it doubles a level.
        blocks_down: Residual blocks of every level, finest first.
        blocks_up: Residual blocks of every level on the way up, deepest first: one level fewer.
        norm, act: MONAI's names of norm and activation, or (name, arguments).
        dropout_prob: Rate of dropping channels behind the first convolution, as MONAI's SegResNet does.
        upsample_mode: MONAI's: 'nontrainable' (linear), 'deconv', 'deconvgroup' or 'pixelshuffle'.
        use_conv_final: False returns the last feature map instead of logits.
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
        spatial_dims: int | None = None,
        in_channels: int | None = None,
        num_classes: int | None = None,
        init_filters: int | None = None,
        blocks_down: Sequence[int] | None = None,
        blocks_up: Sequence[int] | None = None,
        norm: str | tuple | None = None,
        act: str | tuple | None = None,
        dropout_prob: float | None = None,
        upsample_mode: str | None = None,
        use_conv_final: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            num_classes=num_classes,
            init_filters=init_filters,
            blocks_down=blocks_down,
            blocks_up=blocks_up,
            norm=norm,
            act=act,
            dropout_prob=dropout_prob,
            upsample_mode=upsample_mode,
        )
        defaults = dict(
            _BLOCKS,
            spatial_dims=3,
            norm=("group", {"num_groups": 8}),
            act=("relu", {"inplace": True}),
            dropout_prob=0.0,
            upsample_mode="nontrainable",
        )
        s = arch_settings("LightMUNet", ARCHS, arch, given, defaults)
        dims, width, levels = check_dims(s["spatial_dims"]), s["init_filters"], len(s["blocks_down"])
        if len(s["blocks_up"]) != levels - 1:
            raise ValueError(f"blocks_up must have {levels - 1} entries, one fewer than blocks_down: {s['blocks_up']}")
        if s["upsample_mode"] not in UPSAMPLE_MODES:
            raise ValueError(f"upsample_mode must be one of {', '.join(UPSAMPLE_MODES)}, found {s['upsample_mode']!r}")
        self.spatial_dims, self.in_channels, self.num_classes = dims, s["in_channels"], s["num_classes"]
        self.stride = 2 ** (levels - 1)
        style = (dims, s["norm"], s["act"])

        self.convInit = separable_conv(dims, self.in_channels, width)
        self.dropout = Dropout[Dropout.DROPOUT, dims](s["dropout_prob"])
        self.down_layers = nn.ModuleList()
        for level, blocks in enumerate(s["blocks_down"]):
            wide = width * 2**level
            before = nn.Sequential(VisionMambaLayer(wide // 2, wide), MAX_POOL[dims](2)) if level else nn.Identity()
            self.down_layers.append(nn.Sequential(before, *(ResMambaBlock(wide, *style) for _ in range(blocks))))
        self.up_samples, self.up_layers = nn.ModuleList(), nn.ModuleList()
        for level, blocks in zip(range(levels - 2, -1, -1), s["blocks_up"]):
            wide = width * 2**level
            enlarge = UpSample(dims, wide, wide, 2, mode=s["upsample_mode"], interp_mode="linear", align_corners=False)
            self.up_samples.append(nn.Sequential(conv(dims, 2 * wide, wide, 1), enlarge))
            self.up_layers.append(nn.Sequential(*(ResUpBlock(wide, *style) for _ in range(blocks))))
        self.conv_final = None
        if use_conv_final:
            head = separable_conv(dims, width, self.num_classes, kernel=1, bias=True)
            self.conv_final = nn.Sequential(get_norm_layer(s["norm"], dims, width), get_act_layer(s["act"]), head)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, *S) -> the maps of all levels, finest first; the strides must divide S."""
        x, levels = self.dropout(self.convInit(x)), []
        for layer in self.down_layers:
            x = layer(x)
            levels.append(x)
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, *S) of images or volumes (B, in_channels, *S) of any size.

        Sizes that the strides do not divide are padded at their far ends by repeated edges.

        Raises:
            ValueError: wrong number of axes or channels.
        """
        check_input(x, self.spatial_dims, self.in_channels)
        size = tuple(x.shape[2:])
        levels = self.encode(pad_to(x, padded_size(size, (self.stride,) * self.spatial_dims, least=1)))
        x = levels.pop()
        for enlarge, layer in zip(self.up_samples, self.up_layers):
            x = layer(enlarge(x) + levels.pop())
        return crop_to(x if self.conv_final is None else self.conv_final(x), size)


def conv(dims: int, cin: int, cout: int, kernel: int, groups: int = 1, bias: bool = False) -> Convolution:
    """A bare convolution under MONAI's name `conv`."""
    return Convolution(dims, cin, cout, kernel_size=kernel, groups=groups, bias=bias, conv_only=True)


def separable_conv(dims: int, cin: int, cout: int, kernel: int = 3, bias: bool = False) -> nn.Sequential:
    """A convolution a channel, then one across channels."""
    return nn.Sequential(conv(dims, cin, cin, kernel, groups=cin, bias=bias), conv(dims, cin, cout, 1, bias=bias))


class VisionMambaLayer(nn.Module):
    """The paper's residual vision Mamba (RVM) layer: project(norm(mamba(norm(x)) + scale * x)), the same norm twice.

    Runs in the parameters' precision with autocast off, as other Mamba layers in half precision overflow.
    """

    def __init__(self, cin: int, cout: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(cin)
        self.mamba = Mamba(cin, d_state, d_conv, expand)
        self.proj = nn.Linear(cin, cout)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, *S) -> (B, cout, *S)."""
        with without_autocast(x):
            tokens = x.to(self.norm.weight.dtype).flatten(2).transpose(1, 2)
            tokens = self.mamba(self.norm(tokens)) + self.skip_scale * tokens
            tokens = self.proj(self.norm(tokens))
        # contiguous: on CPUs PyTorch's group norm loses digits on batches with channels last (1e-5 behind 64^3 voxels)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:]).contiguous()


class ResMambaBlock(nn.Module):
    """Norm, activation and Mamba layer, twice, plus the input. (B, C, *S) -> (B, C, *S)."""

    def __init__(self, channels: int, dims: int, norm: str | tuple, act: str | tuple) -> None:
        super().__init__()
        self.norm1, self.norm2 = (get_norm_layer(norm, dims, channels) for _ in range(2))
        self.act = get_act_layer(act)
        self.conv1, self.conv2 = (VisionMambaLayer(channels, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.act(self.norm1(x)))
        return x + self.conv2(self.act(self.norm2(y)))


class ResUpBlock(nn.Module):
    """Norm, activation and separable convolution plus the scaled input, then norm and activation outside of it.

    (B, C, *S) -> (B, C, *S).
    """

    def __init__(self, channels: int, dims: int, norm: str | tuple, act: str | tuple) -> None:
        super().__init__()
        self.norm1, self.norm2 = (get_norm_layer(norm, dims, channels) for _ in range(2))
        self.act = get_act_layer(act)
        self.conv = separable_conv(dims, channels, channels)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.act(self.norm1(x))) + self.skip_scale * x
        return self.act(self.norm2(y))
