"""LocalVim (Huang et al., arXiv 2403.09338): a plain stack of blocks that scan patches in four directions chosen for
each layer, by rows, columns and windows. With `search` it is the supernet that chooses them.

Legend of the suffixes: B batch, M patches, T tokens with the class token, C channels, H, W the grid of patches.
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
from mamba_vision.models.layers.local_directions import UNSEARCHED, Directions, layer_scans
from mamba_vision.models.layers.options import check_image, checked_frozen, checked_indices, one_of
from mamba_vision.models.layers.positions import resize_positions, square_grid
from mamba_vision.models.layers.rotary import rotary_tables, rotate
from mamba_vision.registry import MODELS
from mamba_vision.scan_orders import Orders, class_token_places, insert_tokens, orders_around, split_tokens
from mamba_vision.scan_orders.local import CANDIDATES

_PUBLISHED = dict(num_layers=20, directions="local_vim")
ARCHS = {
    "test": dict(embed_dims=32, num_layers=3),
    "tiny": dict(embed_dims=192, **_PUBLISHED),
    "tiny_middle_cls_token": dict(embed_dims=192, class_token="middle", **_PUBLISHED),
    "tiny_wo_search": dict(embed_dims=192, num_layers=20, directions=UNSEARCHED),
    # The published factory exists twice. The paper's network has the searched directions; the definition that wins when
    # the published file is imported is the second one here. Weights fit either.
    "small": dict(embed_dims=384, **_PUBLISHED),
    "small_wo_search": dict(embed_dims=384, num_layers=20, directions=UNSEARCHED),
    "supernet": dict(embed_dims=128, num_layers=20, search=True),
}
# Published, with the 1000-class head of ImageNet, at 224 x 224.
PARAMETERS = {
    "tiny": 7_994_152,
    "tiny_middle_cls_token": 7_994_536,
    "tiny_wo_search": 7_994_152,
    "small": 27_783_784,
    "small_wo_search": 27_783_784,
    "supernet": 5_473_288,
}
OUT_TYPES = ("avg_featmap", "cls_token", "raw", "featmap")


@MODELS.register_module()
class LocalVim(Network):
    """LocalVim backbone; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of embed_dims, num_layers, directions, search and class_token.
        img_size: (height, width) or side that positions are made for. Other sizes interpolate them.
        patch_size: side of a patch; images are filled up with zeros at the right and bottom.
        in_channels: channels of the image.
        directions: of every layer, see `layers.local_directions.directions_by_layer`.
        search: make the supernet: every layer scans in all `candidates` and weighs them. None: as `arch` says, and no
            where `directions` are given.
        candidates: what a supernet chooses from.
        published_reversal: on grids that are not square, published code returns column scans to wrong places, and its
            weights are used to it. False: right.
        scan: config of any other scan order, for every layer.
        class_token: 'none', or 'middle', which stands in the middle of every sequence.
        out_type: 'avg_featmap' (mean over patches) or 'cls_token', both of the normed sum of the two streams and the
            default as there is a class token or not; 'raw', all its tokens; or 'featmap', maps (B, C, H, W) of blocks.
        out_indices: blocks whose features are returned; -1 is the last. Only maps can be of others.
        norm: 'rms' (published classifiers) or 'ln' (published dense models); weights of the one start the other.
        norm_eps: of all norms.
        rope: turn hidden and residual stream by rotary positions before every block. None: where there is no class
            token.
        rope_residual: False leaves the residual stream unturned.
        mixer: more options of the mixer, `MultiMamba`.
        residual_in_fp32: keep the residual stream in float32.
        drop_rate: dropout behind the positions.
        drop_path_rate: highest rate of dropping a block's output.
        frozen_stages: that many blocks are frozen, and what is before them; 0 freezes the patch embedding; -1 nothing.
        with_cp: recompute blocks in backward to save memory.
        init_cfg: MMEngine's.

    Shape:
        (B, in_channels, height, width) to a tuple of features, one an out index. Maps are what the block's mixer gave,
        without residual, through a LayerNorm of its own, `outnorm_<position in out_indices>`.

    Raises:
        ValueError: an option has a value that is not listed above, or options exclude each other.
    """

    published_head = (("head.*", "head.fc.*"),)  # into the LinearClsHead of an ImageClassifier

    def __init__(
        self,
        arch: str | dict = "tiny",
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        directions: Directions = None,
        search: bool | None = None,
        candidates: Sequence[str] = CANDIDATES,
        published_reversal: bool = True,
        scan: dict | str | None = None,
        class_token: str | None = None,
        out_type: str | None = None,
        out_indices: int | Sequence[int] = -1,
        norm: str = "rms",
        norm_eps: float = 1e-5,
        rope: bool | None = None,
        rope_residual: bool = True,
        mixer: dict | None = None,
        residual_in_fp32: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(embed_dims=None, num_layers=None, directions=directions, search=search, class_token=class_token)
        s = arch_settings("LocalVim", ARCHS, arch, given, dict(directions=None, search=False, class_token="none"))
        self.embed_dims, self.num_layers, self.patch_size = s["embed_dims"], s["num_layers"], patch_size
        self.class_token = one_of("class_token", s["class_token"], ("none", "middle"))
        has_token = self.class_token != "none"
        self.out_type = one_of("out_type", out_type or ("cls_token" if has_token else "avg_featmap"), OUT_TYPES)
        rope = not has_token if rope is None else rope
        if self.out_type == "cls_token" and not has_token:
            raise ValueError("out_type: found 'cls_token' with class_token='none', expected another out_type")
        if rope and has_token:
            raise ValueError(
                "rope: found True with a class token, expected False: only patches have a place to turn by"
            )
        self.out_indices = checked_indices(out_indices, self.num_layers)
        if self.out_type != "featmap" and self.out_indices != (self.num_layers - 1,):
            raise ValueError(f"out_indices: found {out_indices}, expected -1 with out_type {self.out_type!r}")
        self.with_cp, self.rope_residual, self.in_channels = with_cp, rope_residual, in_channels
        self.frozen_stages = checked_frozen(frozen_stages, self.num_layers)

        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_channels, self.embed_dims, patch_size, patch_size)
        self.grid = self.grid_of(*((img_size, img_size) if isinstance(img_size, int) else img_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims)) if has_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.grid) + has_token, self.embed_dims))
        self.pos_drop = nn.Dropout(drop_rate)
        self.rope = nn.Module() if rope else None
        if rope:  # kept with the weights: those of fine-tuned models are interpolated ones, not computed
            for name, table in zip(("freqs_cos", "freqs_sin"), rotary_tables(self.grid, self.embed_dims)):
                self.rope.register_buffer(name, table)

        local = dict(published_reversal=published_reversal, class_token=has_token)
        scans = layer_scans(s, self.num_layers, directions, search, candidates, scan, **local)
        rates = [0.0, *drop_path_rates(drop_path_rate, self.num_layers)[:-1]]
        self.layers = nn.ModuleList(
            AddNormBlock(
                self.embed_dims, {"type": "MultiMamba", **(mixer or {}), **own}, norm, norm_eps, rate, residual_in_fp32
            )
            for own, rate in zip(scans, rates)
        )
        self.drop_path = DropPath(drop_path_rate)
        if self.out_type == "featmap":
            self.published_ignored = ("head.*", "norm_f.*")
            for position in range(len(self.out_indices)):
                self.add_module(f"outnorm_{position}", nn.LayerNorm(self.embed_dims))
        else:
            self.published_ignored = ("head.*",)
            self.norm_f = make_norm(norm, self.embed_dims, norm_eps)
        self._init_parameters()
        self._freeze()

    # ---- forward --------------------------------------------------------------------------------------------------
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden_BTC, grid = self.embed(x)
        residual_BTC, tables, maps = None, self._rotary(grid), {}
        for index, layer in enumerate(self.layers):
            if tables is not None:
                hidden_BTC = rotate(hidden_BTC, tables)
                if self.rope_residual and residual_BTC is not None:
                    residual_BTC = rotate(residual_BTC, tables)
            orders = orders_around(layer.mixer.scan, grid, self.class_places(grid), x.device)
            hidden_BTC, residual_BTC = self._block(layer, hidden_BTC, residual_BTC, orders)
            if self.out_type == "featmap":
                maps |= {i: self._map(hidden_BTC, i, grid) for i, at in enumerate(self.out_indices) if at == index}
        if maps:
            return tuple(maps[i] for i in range(len(maps)))
        total_BTC = residual_BTC + self.drop_path(hidden_BTC)
        out_BTC = self.norm_f(total_BTC.to(self.norm_f.weight.dtype))
        if self.out_type == "raw":
            return (out_BTC,)
        places = self.class_places(grid)
        patches, token = split_tokens(out_BTC, places)
        return ((patches if self.out_type == "avg_featmap" else token).mean(1),)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, T, C) with class token and positions, and the grid of patches."""
        check_image(x, self.in_channels)
        grid = self.grid_of(*x.shape[-2:])
        missing = [self.patch_size * cells - size for cells, size in zip(grid, x.shape[-2:])]
        x = nn.functional.pad(x, (0, missing[1], 0, missing[0]))
        tokens_BTC = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            tokens_BTC = insert_tokens(tokens_BTC, self.cls_token, self.class_places(grid))
        positions = resize_with_class_rows(self.pos_embed, self.grid, grid, self.class_token)
        return self.pos_drop(tokens_BTC + positions), grid

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches of an image."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def class_places(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Where the class token stands among the tokens of this grid of patches."""
        return () if self.class_token == "none" else class_token_places("middle", grid[0] * grid[1])

    def _block(self, layer: AddNormBlock, hidden: Tensor, residual: Tensor | None, orders: Orders):
        if self.with_cp and self.training and hidden.requires_grad:
            return checkpoint(layer, hidden, residual, orders, use_reentrant=False)
        return layer(hidden, residual, orders)

    def _rotary(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of the grid's patches, (M, C) each: interpolated, as published, not computed anew."""
        if self.rope is None:
            return None
        tables = (self.rope.freqs_cos, self.rope.freqs_sin)
        return tuple(resize_positions(table[None], self.grid, grid)[0] for table in tables)

    def _map(self, hidden_BTC: Tensor, position: int, grid: tuple[int, int]) -> Tensor:
        places = self.class_places(grid)
        patches_BMC = split_tokens(hidden_BTC, places)[0]
        normed_BMC = getattr(self, f"outnorm_{position}")(patches_BMC)
        return normed_BMC.transpose(1, 2).unflatten(2, grid).contiguous()

    # ---- start, freezing, names -----------------------------------------------------------------------------------
    def _init_parameters(self) -> None:
        """As published, which overwrites Mamba's start of the step sizes: their bias begins at 0, a step of 0.69."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for layer in self.layers:
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
            nn.init.kaiming_uniform_(layer.mixer.out_proj.weight, a=math.sqrt(5))
            with torch.no_grad():
                layer.mixer.out_proj.weight /= math.sqrt(self.num_layers)

    def train(self, mode: bool = True) -> "LocalVim":
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for parameter in (self.pos_embed, self.cls_token):
            if parameter is not None:
                parameter.requires_grad_(False)
        for module in (self.patch_embed, self.pos_drop, *self.layers[: self.frozen_stages]):
            module.eval().requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths) for layer-wise decay: embeddings 0, block i i + 1, the rest last."""
        return block_depth(param_name, prefix, self.num_layers)

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        """A checkpoint's positions and rotary tables, interpolated to this model's grid; other tensors as they are."""
        if name.startswith("rope.freqs_") and value.shape[0] != math.prod(self.grid):
            return resize_positions(value[None], square_grid(value.shape[0], name), self.grid)[0]
        if name == "pos_embed" and value.shape[1] != self.pos_embed.shape[1]:
            grid = square_grid(value.shape[1] - (self.cls_token is not None), name)
            return resize_with_class_rows(value, grid, self.grid, self.class_token)
        return value

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipe trains without weight decay (besides all 1-D ones)."""
        return {name for name in ("pos_embed", "cls_token") if getattr(self, name) is not None}
