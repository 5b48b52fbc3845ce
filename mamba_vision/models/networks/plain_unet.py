"""nnU-Net's plain U-Net (Isensee et al., Nature Methods 18, 2021): what networks with Mamba are compared with."""

from collections.abc import Sequence
from math import prod

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, get_conv_layer
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import check_dims, check_input, per_axis
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size
from mamba_vision.registry import MODELS

# What nnU-Net plans for abdominal CT, and a tiny one for tests.
ARCHS = {
    "abdomen_ct": dict(
        spatial_dims=3,
        features=(32, 64, 128, 256, 320, 320),
        kernel_sizes=((1, 3, 3), *((3, 3, 3),) * 5),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
        in_channels=1,
        num_classes=14,
        patch_size=(40, 224, 192),
    ),
    "tiny": dict(spatial_dims=3, features=(8, 16, 24), strides=(1, 2, 2), in_channels=1, num_classes=3),
}


@MODELS.register_module()
class PlainUNet(Network):
    """nnU-Net's default network, from MONAI's blocks.

    Two convolutions, instance norm and LeakyReLU a stage; transposed convolutions up; skips concatenated; logits of
    every decoder stage. MONAI's DynUNet is nearly that, but its decoder takes the kernels of the stage below. Biases in
    front of norms, which nnU-Net has and the norms take away, are left out.

    Args:
        arch: a variant of ARCHS, or a dict of the settings below; settings given beside it go before it.
        spatial_dims: 2 or 3.
        in_channels, num_classes: channels in, logits out.
        features: width of every stage, finest first.
        kernel_sizes: one kernel a stage, an integer or one integer an axis; default 3.
        strides: one stride a stage; the first is 1.
        n_blocks: convolutions a stage; 2, as the planner's other networks call it.
        patch_size: of training; any other is taken too.
        deep_supervision: whether `forward` returns the logits of every decoder stage; may be switched at any time.
        init_cfg: MMEngine's.

    Raises:
        ValueError: a setting is missing, unknown or contradicts another.
    """

    def __init__(
        self,
        arch: str | dict | None = None,
        spatial_dims: int | None = None,
        in_channels: int | None = None,
        num_classes: int | None = None,
        features: Sequence[int] | None = None,
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        n_blocks: int = 2,
        patch_size: Sequence[int] | None = None,
        deep_supervision: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            spatial_dims=spatial_dims, in_channels=in_channels, num_classes=num_classes, features=features,
            kernel_sizes=kernel_sizes, strides=strides, patch_size=patch_size,
        )  # fmt: skip
        s = arch_settings("PlainUNet", ARCHS, arch, given, dict(spatial_dims=3, kernel_sizes=None, patch_size=None))
        dims, widths = check_dims(s["spatial_dims"]), tuple(s["features"])
        kernels = [per_axis("kernel_sizes", k, dims) for k in s["kernel_sizes"] or (3,) * len(widths)]
        strides = [per_axis("strides", n, dims) for n in s["strides"]]
        if not len(kernels) == len(strides) == len(widths) >= 2 or max(strides[0]) > 1:
            raise ValueError(
                f"features, kernel_sizes and strides must have one entry a stage, at least two, and strides begin "
                f"with 1; found {s['features']}, {s['kernel_sizes']}, {s['strides']}"
            )
        if n_blocks != 2:
            raise ValueError(f"n_blocks must be 2 for PlainUNet, found {n_blocks}")
        self.spatial_dims, self.in_channels, self.num_classes = dims, s["in_channels"], s["num_classes"]
        self.deep_supervision = deep_supervision
        self.cumulative_strides = [tuple(prod(axis) for axis in zip(*strides[: i + 1])) for i in range(len(widths))]
        norm, act = ("instance", {"affine": True}), ("leakyrelu", {"inplace": True, "negative_slope": 0.01})

        def block(cin: int, stage: int, stride: Sequence[int] | int = 1) -> nn.Module:
            return UnetBasicBlock(dims, cin, widths[stage], kernels[stage], stride, norm, act)

        before, levels = (self.in_channels, *widths), range(len(widths) - 2, -1, -1)
        self.encoder = nn.ModuleList(block(before[i], i, strides[i]) for i in range(len(widths)))
        self.upsample = nn.ModuleList(
            get_conv_layer(
                dims, widths[i + 1], widths[i], strides[i + 1], strides[i + 1], None, None,
                bias=True, is_transposed=True,
            )
            for i in levels
        )  # fmt: skip
        self.decoder = nn.ModuleList(block(2 * widths[i], i) for i in levels)
        self.seg_layers = nn.ModuleList(UnetOutBlock(dims, widths[i], self.num_classes) for i in levels)
        self.apply(DynUNet.initialize_weights)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of images or volumes (B, in_channels, *S).

        Returns:
            (B, num_classes, *S); with `deep_supervision` a list of them, finest first. Sizes that the strides do not
            divide are padded at their far ends by repeated edges.

        Raises:
            ValueError: wrong number of axes or channels.
        """
        check_input(x, self.spatial_dims, self.in_channels)
        size, skips = tuple(x.shape[2:]), []
        x = pad_to(x, padded_size(size, self.cumulative_strides[-1]))
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        logits, x = [], skips.pop()
        for up, stage, head in zip(self.upsample, self.decoder, self.seg_layers):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))
            if self.deep_supervision or not skips:
                logits.append(head(x))
        sizes = [[-(-n // m) for n, m in zip(size, stride)] for stride in self.cumulative_strides]
        logits = [crop_to(y, at) for y, at in zip(logits[::-1], sizes)]
        return logits if self.deep_supervision else logits[0]
