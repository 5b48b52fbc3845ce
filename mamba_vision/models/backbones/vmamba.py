"""VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166): four stages of blocks that scan maps in four directions.

Maps stay channels-last, (B, H, W, C), from the patch embedding to the output norms; images come and features go as
(B, C, H, W). Parameter names are those of the second generation of published checkpoints.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.channels_last import channels_last_norm
from mamba_vision.models.layers.drop_path import drop_path_rates
from mamba_vision.models.layers.layer_depth import stage_depth
from mamba_vision.models.layers.options import check_image, checked_frozen, checked_indices
from mamba_vision.models.layers.positions import resize_positions, same_grid, square_grid
from mamba_vision.models.layers.vss_block import VSSBlock
from mamba_vision.models.layers.vss_stage import VSSStage
from mamba_vision.models.layers.vss_stems import make_downsample, make_patch_embed
from mamba_vision.models.mixers.vmamba_types import options_of
from mamba_vision.registry import MODELS

_FIRST = dict(
    d_state=16, ssm_ratio=2.0, ssm_conv_bias=True, forward_type="v0", mlp_ratio=0.0, norm_layer="ln",
    patch_embed="v1", downsample="v1",
)  # fmt: skip
_SSD = dict(d_state=64, ssm_ratio=1.0, ssm_act="gelu", ssm_init="v2", forward_type="m0_noz", norm_layer="ln")
# Settings that are not listed have the defaults of the second generation, see `VMamba`.
ARCHS = {
    "test": dict(dims=16, depths=(1, 1, 2, 1), ssm_ratio=1.0),
    "test_vanilla": dict(dims=16, depths=(1, 1, 2, 1), **_FIRST),
    "vanilla_tiny": dict(dims=96, depths=(2, 2, 9, 2), **_FIRST),
    "vanilla_small": dict(dims=96, depths=(2, 2, 27, 2), **_FIRST),
    "vanilla_base": dict(dims=128, depths=(2, 2, 27, 2), **_FIRST),
    "tiny_s2l5": dict(dims=96, depths=(2, 2, 5, 2), ssm_ratio=2.0),
    "small_s2l15": dict(dims=96, depths=(2, 2, 15, 2), ssm_ratio=2.0),
    "base_s2l15": dict(dims=128, depths=(2, 2, 15, 2), ssm_ratio=2.0),
    "tiny_s1l8": dict(dims=96, depths=(2, 2, 8, 2), ssm_ratio=1.0),
    "small_s1l20": dict(dims=96, depths=(2, 2, 20, 2), ssm_ratio=1.0),
    "base_s1l20": dict(dims=128, depths=(2, 2, 20, 2), ssm_ratio=1.0),
    "tiny_m2": dict(dims=96, depths=(2, 2, 4, 2), **_SSD),
    "small_m2": dict(dims=96, depths=(2, 2, 12, 2), **_SSD),
    "base_m2": dict(dims=128, depths=(2, 2, 12, 2), **_SSD),
}
ARCHS |= {"tiny": ARCHS["tiny_s1l8"], "small": ARCHS["small_s1l20"], "base": ARCHS["base_s1l20"]}
# Published, with the 1000-class head of ImageNet.
PARAMETERS = {
    "vanilla_tiny": 22_893_448, "vanilla_small": 44_417_416, "vanilla_base": 76_254_056,
    "tiny_s2l5": 30_705_832, "small_s2l15": 50_147_752, "base_s2l15": 88_557_800,
    "tiny_s1l8": 30_249_064, "small_s1l20": 49_012_840, "base_s1l20": 86_614_504,
    "tiny_m2": 25_340_296,
}  # fmt: skip
DEFAULTS = dict(
    ssm_ratio=2.0, d_state=1, dt_rank="auto", ssm_act="silu", ssm_conv=3, ssm_conv_bias=False, ssm_init="v0",
    forward_type="v05_noz", mlp_ratio=4.0, mlp_act="gelu", gmlp=False, post_norm=False, norm_layer="ln2d",
    patch_norm=True, patch_embed="v2", downsample="v3",
)  # fmt: skip


@MODELS.register_module()
class VMamba(Network):
    """VMamba backbone; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings from `dims` to `downsample`.
        in_channels: channels of the image.
        out_indices: stages whose maps are returned; none of them: the last one's map, not normed.
        dims: width of the first stage, doubling from stage to stage, or of every stage.
        depths: blocks of every stage.
        ssm_ratio: inner width of the mixer over the stage's; 0 for blocks without mixer.
        d_state: states a channel.
        dt_rank: rank of the step sizes; 'auto' is ceil(width / 16).
        ssm_act, ssm_conv, ssm_conv_bias, ssm_init: activation, side and bias of the depthwise convolution, start of the
            scan's parameters, see `Mixer2d` and `SS2D`.
        forward_type: published name of the mixer's form, see `mixers.vmamba_types`.
        mlp_ratio, mlp_act, gmlp: inner width of the perceptron over the stage's (0 for none), activation, gate.
        post_norm: norms behind the branches instead of before.
        norm_layer: 'ln', 'ln2d' (the same here) or 'bn'.
        patch_norm: norms in the patch embedding.
        patch_embed: 'v1' or 'v2'.
        downsample: 'v1', 'v2', 'v3' or 'none'.
        patch_size: stride of the patch embedding.
        scan: config of another scan order for every mixer.
        img_size: side of the image that learned positions are made for; other sizes interpolate them. None: no
            positions, as in all published models.
        ssm_drop, mlp_drop: dropout.
        drop_path_rate: highest rate of dropping a branch.
        frozen_stages: that many stages are frozen, and what is before them; 0 freezes the patch embedding; -1 nothing.
        with_cp: recompute blocks in backward to save memory.
        init_cfg: MMEngine's.

    Shape:
        (B, in_channels, height, width) to a tuple of (B, C, H, W): stage i before its downsampling, normed by
        `outnorm{i}`, at stride patch_size * 2^i (odd sizes round up with downsample v1 and v3, down with v2).

    Raises:
        ValueError: an unknown arch, setting or name, or an out index that is no stage.
    """

    published_renames = (
        ("patch_embed.proj.*", "patch_embed.0.*"),
        ("patch_embed.norm.*", "patch_embed.2.*"),
        ("layers.*.blocks.*.ln_1.*", "layers.*.blocks.*.norm.*"),
        ("layers.*.blocks.*.self_attention.**", "layers.*.blocks.*.op.**"),
        ("layers.*.blocks.*.op.x_proj.weight", "layers.*.blocks.*.op.x_proj_weight"),
        ("layers.*.blocks.*.op.dt_projs.weight", "layers.*.blocks.*.op.dt_projs_weight"),
        ("layers.*.blocks.*.op.conv2d.1.*", "layers.*.blocks.*.op.conv2d.*"),
    )
    published_ignored = ("classifier.**", "head.*", "norm.*")
    published_head = (("classifier.head.*", "head.fc.*"), ("head.*", "head.fc.*"))

    def __init__(
        self,
        arch: str | dict | None = "tiny",
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        dims: int | Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        ssm_ratio: float | None = None,
        d_state: int | None = None,
        dt_rank: int | str | None = None,
        ssm_act: str | None = None,
        ssm_conv: int | None = None,
        ssm_conv_bias: bool | None = None,
        ssm_init: str | None = None,
        forward_type: str | None = None,
        mlp_ratio: float | None = None,
        mlp_act: str | None = None,
        gmlp: bool | None = None,
        post_norm: bool | None = None,
        norm_layer: str | None = None,
        patch_norm: bool | None = None,
        patch_embed: str | None = None,
        downsample: str | None = None,
        patch_size: int = 4,
        scan: dict | None = None,
        img_size: int | None = None,
        ssm_drop: float = 0.0,
        mlp_drop: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            dims=dims, depths=depths, ssm_ratio=ssm_ratio, d_state=d_state, dt_rank=dt_rank, ssm_act=ssm_act,
            ssm_conv=ssm_conv, ssm_conv_bias=ssm_conv_bias, ssm_init=ssm_init, forward_type=forward_type,
            mlp_ratio=mlp_ratio, mlp_act=mlp_act, gmlp=gmlp, post_norm=post_norm, norm_layer=norm_layer,
            patch_norm=patch_norm, patch_embed=patch_embed, downsample=downsample,
        )  # fmt: skip
        s = arch_settings("VMamba", ARCHS, arch, given, DEFAULTS)
        stages = range(len(s["depths"]))
        self.dims = [s["dims"] * 2**i for i in stages] if isinstance(s["dims"], int) else list(s["dims"])
        self.depths, self.embed_dims, self.in_channels = tuple(s["depths"]), self.dims[-1], in_channels
        self.frozen_stages = checked_frozen(frozen_stages, len(self.depths), "stages")
        self.out_indices = () if out_indices in ((), []) else checked_indices(out_indices, len(self.depths))
        if len(self.dims) != len(self.depths):
            raise ValueError(f"dims: found {len(self.dims)} widths, expected one for each of {len(self.depths)} stages")

        norm = s["norm_layer"]
        self.patch_embed = make_patch_embed(
            s["patch_embed"], in_channels, self.dims[0], patch_size, norm if s["patch_norm"] else None
        )
        self.pos_embed = None
        if img_size is not None:
            side = img_size // patch_size
            self.pos_embed = nn.Parameter(torch.zeros(1, self.dims[0], side, side))
        mixer = self._mixer_config(s, scan, ssm_drop)
        block = dict(mixer=mixer, norm=norm, mlp_drop=mlp_drop, post_norm=s["post_norm"])
        block |= dict(mlp_ratio=s["mlp_ratio"], mlp_act=s["mlp_act"], gmlp=s["gmlp"])
        rates = iter(drop_path_rates(drop_path_rate, sum(self.depths)))
        self.layers = nn.ModuleList()
        for i, depth in enumerate(self.depths):
            blocks = [VSSBlock(self.dims[i], drop_path=next(rates), **block) for _ in range(depth)]
            last = i + 1 == len(self.depths)
            step = nn.Identity() if last else make_downsample(s["downsample"], self.dims[i], self.dims[i + 1], norm)
            self.layers.append(VSSStage(blocks, step, with_cp))
        for i in self.out_indices:
            self.add_module(f"outnorm{i}", channels_last_norm(norm, self.dims[i]))

        if self.out_indices == (len(self.depths) - 1,):
            # As a classifier's backbone: its norm before the pooling is ours behind the last stage.
            to_norm = f"outnorm{self.out_indices[0]}.*"
            self.published_renames = (("classifier.norm.*", to_norm), ("norm.*", to_norm), *self.published_renames)
            self.published_ignored = ("classifier.head.*", "head.*")
        if s["downsample"] == "v1":  # the one-file version's names, which mean other layers in v2 and v3
            one_file = (("layers.*.downsample.1.*", "layers.*.downsample.norm.*"),)
            one_file += (("layers.*.downsample.2.*", "layers.*.downsample.reduction.*"),)
            self.published_renames = (*self.published_renames, *one_file)
        self._init_parameters()
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_image(x, self.in_channels)
        x_BHWC = self.patch_embed(x)
        if self.pos_embed is not None:
            x_BHWC = x_BHWC + self._positions(tuple(x_BHWC.shape[1:3])).permute(0, 2, 3, 1)
        outs = []
        for i, stage in enumerate(self.layers):
            feature_BHWC, x_BHWC = stage(x_BHWC)
            if i in self.out_indices:
                normed = getattr(self, f"outnorm{i}")(feature_BHWC)
                outs.append(normed.permute(0, 3, 1, 2).contiguous())
        return tuple(outs) or (x_BHWC.permute(0, 3, 1, 2).contiguous(),)

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        """A checkpoint's tensor in this model's shape: positions resampled; matrices that were stored flat, or as 1 x 1
        convolutions, viewed."""
        own = dict(self.named_parameters()).get(name)
        if own is None or own.shape == value.shape:
            return value
        if name == "pos_embed":
            table = value.flatten(2).transpose(1, 2)
            resized = resize_positions(table, square_grid(table.shape[1], name), tuple(own.shape[2:]))
            return resized.transpose(1, 2).view_as(own)
        return value.reshape(own.shape) if value.numel() == own.numel() else value

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths) for layer-wise decay: embedding 0, then block by block, norms last.

        A downsampling has the depth of the block behind it.
        """
        return stage_depth(param_name, prefix, self.depths)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipe trains without weight decay, besides all 1-D ones."""
        return set() if self.pos_embed is None else {"pos_embed"}

    def train(self, mode: bool = True) -> "VMamba":
        super().train(mode)
        self._freeze()
        return self

    @staticmethod
    def _mixer_config(s: dict, scan: dict | None, drop: float) -> dict | None:
        if s["ssm_ratio"] <= 0:
            return None
        config = dict(act=s["ssm_act"], d_conv=s["ssm_conv"], conv_bias=s["ssm_conv_bias"], ssm_init=s["ssm_init"])
        config |= dict(d_state=s["d_state"], dt_rank=s["dt_rank"], ssm_ratio=s["ssm_ratio"], drop=drop)
        config |= options_of(s["forward_type"])
        if scan is None:
            return config
        if config["type"] == "CascadeSS2D":
            raise ValueError(f"scan: found {scan}, expected none with forward_type {s['forward_type']!r}")
        return {**config, "scan": scan}

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        own = tuple(self.pos_embed.shape[2:])
        if same_grid(own, grid):
            return self.pos_embed
        table = resize_positions(self.pos_embed.flatten(2).transpose(1, 2), own, grid)
        return table.transpose(1, 2).unflatten(2, grid)

    def _init_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        if self.pos_embed is not None:
            self.pos_embed.requires_grad_(False)
        norms = [getattr(self, f"outnorm{i}") for i in self.out_indices if i < self.frozen_stages]
        for module in (self.patch_embed, *self.layers[: self.frozen_stages], *norms):
            module.eval().requires_grad_(False)
