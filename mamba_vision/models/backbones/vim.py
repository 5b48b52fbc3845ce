"""Vision Mamba, Vim (Zhu et al., ICML 2024, arXiv 2401.09417): patches, a class token, a stack of bidirectional blocks.

Legend of the suffixes: B batch, M patches, L tokens with class tokens, C channels, H, W the grid of patches.
Tokens stay channels-last from the patch embedding to the last norm.
"""

import math
from collections.abc import Sequence

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamba_vision.models.base import Network
from mamba_vision.models.layers.add_norm_block import AddNormBlock, make_norm
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.class_tokens import resize_with_class_rows
from mamba_vision.models.layers.drop_path import drop_path_rates
from mamba_vision.models.layers.layer_depth import block_depth
from mamba_vision.models.layers.options import check_image, checked_frozen, checked_indices, one_of
from mamba_vision.models.layers.positions import same_grid, square_grid
from mamba_vision.models.layers.rotary import rotary_tables, rotate
from mamba_vision.models.layers.vit_pyramid import VitPyramid
from mamba_vision.registry import MODELS
from mamba_vision.scan_orders import class_token_places, insert_tokens, sequence_order, split_tokens

ARCHS = {
    "test": dict(embed_dims=32, num_layers=4),
    "tiny": dict(embed_dims=192, num_layers=24),
    "tiny+": dict(embed_dims=192, num_layers=24, stride=8),
    "small": dict(embed_dims=384, num_layers=24),
    "small+": dict(embed_dims=384, num_layers=24, stride=8),
    "base": dict(embed_dims=768, num_layers=24),
}
# Published, with the 1000-class head of ImageNet, at 224 x 224.
PARAMETERS = {"tiny": 7_148_008, "tiny+": 7_250_344, "small": 25_796_584, "small+": 26_001_256, "base": 97_598_440}
CLASS_TOKENS = ("middle", "head", "tail", "head_tail", "random", "none")
OUT_TYPES = ("cls_token", "avg_featmap", "last_token", "raw", "featmap")


@MODELS.register_module()
class Vim(Network):
    """Vision Mamba backbone.

    Args:
        arch: a name of `ARCHS`, or a dict of embed_dims, num_layers and, if not the patch size, stride.
        img_size: (height, width) or side that the position table is made for. Other sizes interpolate it.
        patch_size: side of a patch.
        stride: step between patches; None: the arch's.
        in_channels: channels of the image.
        class_token: 'middle' (published), 'head', 'tail', 'head_tail' (two), 'random' (anew at every
            call) or 'none'.
        out_type: 'cls_token' (mean of two), 'avg_featmap' (mean over patches), 'last_token', 'raw' (all tokens):
            all of the normed sum of the two streams; or 'featmap', maps (B, C, H, W) of `features`.
        out_indices: blocks whose features are returned; -1 is the last.
        features: what a map shows: 'hidden', the mixer's output (published Vim-Ti segmentation), or 'residual', the
            residual stream behind the block (published Vim-S segmentation).
        last_feature: for the last block under 'residual': 'none' its output alone, 'add' with the residual stream,
            'add_norm' that sum normed.
        pyramid: bring the maps to strides 4, 8, 16 and 32 (`VitPyramid`).
        norm_cfg: norm in the pyramid.
        abs_pos: learned absolute positions.
        rope: turn hidden states by rotary positions before every block. As published, the first token is left out where
            there is a class token, wherever that stands.
        rope_residual: turn the residual stream too.
        rope_extent: positions that an axis is rescaled to, whatever its length.
        position_resize: 'exact', or 'published' for Vim's own way with the class token's row, see
            `resize_with_class_rows`.
        flip_ratio: probability of reversing the token order (in evaluation too, as published); never turned back.
        pairs: consecutive layers as forward and backward readers whose streams are added (published as
            if_bidirectional). An odd last layer is unused. Gives no intermediate features.
        mixer: options of the mixer, `BidirectionalMamba` unless it names a type.
        scan: config of the scan order of every mixer.
        norm: 'rms' or 'ln'.
        norm_eps: of all norms.
        residual_in_fp32: keep the residual stream in float32.
        drop_rate: dropout behind the positions.
        drop_path_rate: highest rate of dropping a block's output.
        frozen_stages: that many blocks are frozen, and what is before them; 0 freezes the patch embedding; -1 nothing.
        with_cp: recompute blocks in backward to save memory.
        init_cfg: MMEngine's.

    Shape:
        (B, in_channels, height, width) to a tuple of features, one an out index (four for a pyramid).

    Raises:
        ValueError: an option has a value that is not listed above.
    """

    published_renames = (("fpn*.**", "pyramid.fpn*.**"),)
    published_ignored = ("rope.freqs_*", "head.*")
    published_head = (("head.*", "head.fc.*"),)  # into the LinearClsHead of an ImageClassifier

    def __init__(
        self,
        arch: str | dict = "tiny",
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        stride: int | None = None,
        in_channels: int = 3,
        class_token: str = "middle",
        out_type: str = "cls_token",
        out_indices: int | Sequence[int] = -1,
        features: str = "hidden",
        last_feature: str = "add_norm",
        pyramid: bool = False,
        norm_cfg: dict | None = None,
        abs_pos: bool = True,
        rope: bool = False,
        rope_residual: bool = False,
        rope_extent: float = 14,
        position_resize: str = "exact",
        flip_ratio: float = 0.0,
        pairs: bool = False,
        mixer: dict | None = None,
        scan: dict | None = None,
        norm: str = "rms",
        norm_eps: float = 1e-5,
        residual_in_fp32: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = {"embed_dims": None, "num_layers": None, "stride": stride}
        settings = arch_settings("Vim", ARCHS, arch, given, {"stride": patch_size})
        self.embed_dims, self.num_layers, self.stride = (settings[key] for key in given)
        self.patch_size = patch_size
        self.class_token = one_of("class_token", class_token, CLASS_TOKENS)
        self.out_type = one_of("out_type", out_type, OUT_TYPES)
        self.features = one_of("features", features, ("hidden", "residual"))
        self.last_feature = one_of("last_feature", last_feature, ("none", "add", "add_norm"))
        self.position_resize = one_of("position_resize", position_resize, ("exact", "published"))
        if out_type == "cls_token" and class_token == "none":
            raise ValueError("out_type: found 'cls_token' with class_token='none', expected another out_type")
        if pyramid and out_type != "featmap":
            raise ValueError(f"pyramid: needs out_type='featmap', found {out_type!r}")
        self.out_indices = checked_indices(out_indices, self.num_layers)
        if pairs and self.out_indices != (self.num_layers - 1,):
            raise ValueError(f"out_indices: found {out_indices}, expected -1 with pairs=True")
        self.rope, self.rope_residual, self.rope_extent = rope, rope_residual, rope_extent
        self.flip_ratio, self.pairs, self.with_cp = flip_ratio, pairs, with_cp
        self.in_channels, self.frozen_stages = in_channels, checked_frozen(frozen_stages, self.num_layers)

        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_channels, self.embed_dims, patch_size, self.stride)
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.grid = self.grid_of(*size)
        tokens = {"none": (), "head_tail": ("cls_token_head", "cls_token_tail")}.get(class_token, ("cls_token",))
        for name in tokens:
            setattr(self, name, nn.Parameter(torch.zeros(1, 1, self.embed_dims)))
        self.class_names = tokens
        length = self.grid[0] * self.grid[1] + len(tokens)
        self.pos_embed = nn.Parameter(torch.zeros(1, length, self.embed_dims)) if abs_pos else None
        self.pos_drop = nn.Dropout(drop_rate)

        mixer = {"type": "BidirectionalMamba", **(mixer or {}), **({} if scan is None else {"scan": scan})}
        self.layers = nn.ModuleList(
            AddNormBlock(self.embed_dims, mixer, norm, norm_eps, rate, residual_in_fp32)
            for rate in [0.0, *drop_path_rates(drop_path_rate, self.num_layers)[:-1]]
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm_f = make_norm(norm, self.embed_dims, norm_eps)
        normed_map = features == "residual" and last_feature == "add_norm" and self.num_layers - 1 in self.out_indices
        if out_type == "featmap" and not normed_map:
            self.norm_f.requires_grad_(False)  # published files have it, but training in several processes waits for it
        self.pyramid = VitPyramid(self.embed_dims, self.stride, norm_cfg) if pyramid else None

        if class_token == "none":  # a classifier's token may be in the file, see fit_published
            self.published_ignored = (*self.published_ignored, "cls_token")
        self._init_parameters()
        self._freeze()

    # ---- forward --------------------------------------------------------------------------------------------------
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens_BLC, grid, places = self.embed(x)
        flipped = self.flip_ratio > 0 and self.flip_ratio - float(torch.rand(())) > 1e-5
        if flipped:
            tokens_BLC = tokens_BLC.flip(1)
        tables = self._rotary(grid, tokens_BLC) if self.rope else None
        order = sequence_order(self.layers[0].mixer.scan, grid, places, tokens_BLC.device)
        run = self._run_pairs if self.pairs else self._run
        streams = run(tokens_BLC, order, tables, flipped)
        outs = tuple(self._read_out(streams, index, grid, places) for index in self.out_indices)
        return outs if self.pyramid is None else self.pyramid(outs)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int], tuple[int, ...]]:
        """Tokens (B, L, C) with class tokens and positions, the grid of patches, and the class tokens' places."""
        check_image(x, self.in_channels)
        grid = self.grid_of(*x.shape[-2:])
        patches_BMC = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        places = self.class_places(grid)
        class_tokens = [getattr(self, name) for name in self.class_names]
        tokens_BLC = insert_tokens(patches_BMC, torch.cat(class_tokens, 1), places) if places else patches_BMC
        if self.pos_embed is not None:
            tokens_BLC = tokens_BLC + self._positions(grid)
        return self.pos_drop(tokens_BLC), grid, places

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches of an image.

        Raises:
            ValueError: the image is smaller than one patch.
        """
        if min(height, width) < self.patch_size:
            raise ValueError(f"image: found {height} x {width}, expected at least {self.patch_size} pixels a side")
        return (height - self.patch_size) // self.stride + 1, (width - self.patch_size) // self.stride + 1

    def class_places(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Where the class tokens stand among the tokens of this grid of patches (drawn anew if random)."""
        patches = grid[0] * grid[1]
        if self.class_token == "random":
            return (int(torch.randint(patches + 1, ())),)
        return () if self.class_token == "none" else class_token_places(self.class_token, patches)

    def _run(
        self, hidden: Tensor, order: Tensor | None, tables: tuple[Tensor, Tensor] | None, flipped: bool
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """(hidden, residual) behind each block asked for, and behind its successor, by number of the block."""
        residual, kept = None, {}
        wanted = {*self.out_indices, *(index + 1 for index in self.out_indices)}
        for index, layer in enumerate(self.layers):
            if tables is not None:
                hidden, residual = self._turn(hidden, residual, tables, flipped)
            hidden, residual = self._block(layer, hidden, residual, order)
            if index in wanted:
                kept[index] = (hidden, residual)
        return kept

    def _run_pairs(
        self, hidden: Tensor, order: Tensor | None, tables: tuple[Tensor, Tensor] | None, flipped: bool
    ) -> dict[int, tuple[Tensor, Tensor]]:
        residual = None
        for forward, backward in zip(self.layers[0::2], self.layers[1::2]):
            if tables is not None:
                hidden, residual = self._turn(hidden, residual, tables, flipped)
            ahead = self._block(forward, hidden, residual, order)
            back = self._block(backward, hidden.flip(1), None if residual is None else residual.flip(1), order)
            hidden, residual = (a + b.flip(1) for a, b in zip(ahead, back))
        return {self.num_layers - 1: (hidden, residual)}

    def _block(self, layer: AddNormBlock, hidden: Tensor, residual: Tensor | None, order: Tensor | None):
        if self.with_cp and self.training and hidden.requires_grad:
            return checkpoint(layer, hidden, residual, order, use_reentrant=False)
        return layer(hidden, residual, order)

    def _rotary(self, grid: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Tables over the whole sequence: tokens that are not turned have cosine 1 and sine 0."""
        cos, sin = rotary_tables(grid, self.embed_dims, self.rope_extent, like)
        before, behind = min(len(self.class_names), 1), max(len(self.class_names) - 1, 0)
        cos = nn.functional.pad(cos, (0, 0, before, behind), value=1.0)
        return cos, nn.functional.pad(sin, (0, 0, before, behind))

    def _turn(
        self, hidden: Tensor, residual: Tensor | None, tables: tuple[Tensor, Tensor], flipped: bool
    ) -> tuple[Tensor, Tensor | None]:
        if flipped:
            tables = (tables[0].flip(0), tables[1].flip(0))
        hidden = rotate(hidden, tables)
        if self.rope_residual and residual is not None:
            residual = rotate(residual, tables)
        return hidden, residual

    def _read_out(
        self, streams: dict[int, tuple[Tensor, Tensor]], index: int, grid: tuple[int, int], places: tuple[int, ...]
    ) -> Tensor:
        hidden, residual = streams[index]
        last = index == self.num_layers - 1
        if self.out_type == "featmap":
            if self.features == "residual" and not last:
                hidden = streams[index + 1][1]
            elif self.features == "residual" and self.last_feature == "add":
                hidden = hidden + residual
            elif self.features == "residual" and self.last_feature == "add_norm":
                hidden = self._sum_and_norm(hidden, residual)
            map_BMC = split_tokens(hidden, places)[0]
            return map_BMC.transpose(1, 2).unflatten(2, grid).contiguous()
        out_BLC = self._sum_and_norm(hidden, residual)
        if self.out_type == "raw":
            return out_BLC
        if self.out_type == "last_token":
            return out_BLC[:, -1]
        patches, tokens = split_tokens(out_BLC, places)
        return (patches if self.out_type == "avg_featmap" else tokens).mean(1)

    def _sum_and_norm(self, hidden: Tensor, residual: Tensor) -> Tensor:
        total = residual + self.drop_path(hidden)
        return self.norm_f(total.to(self.norm_f.weight.dtype))

    # ---- positions, freezing, names -------------------------------------------------------------------------------
    def _positions(self, grid: tuple[int, int]) -> Tensor:
        if same_grid(grid, self.grid):
            return self.pos_embed
        published = self.position_resize == "published"
        return resize_with_class_rows(self.pos_embed, self.grid, grid, self._position_rows, published)

    @property
    def _position_rows(self) -> str:
        """Where the position table has the class tokens' rows."""
        return "head" if self.class_token == "random" else self.class_token

    def _init_parameters(self) -> None:
        """As published, but for nothing that would undo the mixers' own start of their step sizes."""
        conv = self.patch_embed.proj
        std = conv.weight[0].numel() ** -0.5 / 0.87962566103423978  # LeCun normal, cut at two deviations
        nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(conv.bias)
        for name in (*self.class_names, "pos_embed"):
            if getattr(self, name) is not None:
                nn.init.trunc_normal_(getattr(self, name), std=0.02)
        for layer in self.layers:
            for module in layer.modules():
                bias = getattr(module, "bias", None) if isinstance(module, nn.Linear) else None
                if bias is not None and not getattr(bias, "_no_reinit", False):
                    nn.init.zeros_(bias)
            nn.init.kaiming_uniform_(layer.mixer.out_proj.weight, a=math.sqrt(5))
            with torch.no_grad():
                layer.mixer.out_proj.weight /= math.sqrt(self.num_layers)

    def train(self, mode: bool = True) -> "Vim":
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for name in ("pos_embed", *self.class_names):
            if getattr(self, name) is not None:
                getattr(self, name).requires_grad_(False)
        for module in (self.patch_embed, self.pos_drop, *self.layers[: self.frozen_stages]):
            module.eval().requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths) for layer-wise decay: embeddings 0, block i i + 1, the rest last."""
        return block_depth(param_name, prefix, self.num_layers)

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        """A checkpoint's position table, fitted to this model's grid and class tokens; other tensors as they are."""
        if name != "pos_embed" or self.pos_embed is None or value.shape[1] == self.pos_embed.shape[1]:
            return value
        tokens = len(self.class_names)
        if not tokens and math.isqrt(value.shape[1]) ** 2 != value.shape[1]:
            # A classifier's file for a model without class token: all published ones have theirs in the middle.
            value = split_tokens(value, class_token_places("middle", value.shape[1] - 1))[0]
        grid = square_grid(value.shape[1] - tokens, name)
        published = self.position_resize == "published"
        return resize_with_class_rows(value, grid, self.grid, self._position_rows, published)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipe trains without weight decay (besides all 1-D ones)."""
        return {name for name in ("pos_embed", *self.class_names) if getattr(self, name) is not None}
