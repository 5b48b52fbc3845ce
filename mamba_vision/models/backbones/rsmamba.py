"""RSMamba (Chen et al., IEEE GRSL 2024, arXiv 2403.19654): remote-sensing scenes by a plain stack of multi-path layers.

Legend: B batch, M patches, L tokens with class tokens, C channels, H, W the grid of patches, K paths.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.transformer import PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.class_tokens import resize_with_class_rows
from mamba_vision.models.layers.drop_path import drop_path_rates
from mamba_vision.models.layers.layer_depth import block_depth
from mamba_vision.models.layers.options import check_image, checked_frozen, checked_indices, one_of
from mamba_vision.models.layers.positions import square_grid
from mamba_vision.models.layers.sine_positions import sine_positions
from mamba_vision.models.mixers.shared_paths import SharedPathsMamba
from mamba_vision.registry import MODELS, SCAN_ORDERS
from mamba_vision.scan_orders import Shuffle, class_token_places, insert_tokens, sequence_order, split_tokens

ARCHS = {
    "test": dict(embed_dims=32, num_layers=3, feedforward_channels=64),
    "small": dict(embed_dims=192, num_layers=16, feedforward_channels=384),
    "base": dict(embed_dims=192, num_layers=24, feedforward_channels=384),
    "large": dict(embed_dims=256, num_layers=36, feedforward_channels=512),
    "huge": dict(embed_dims=320, num_layers=48, feedforward_channels=640),
}
ARCHS |= {name[0]: ARCHS[name] for name in ("small", "base", "large", "huge")}  # as published configs name them
# Without head, at 224 x 224 and stride 8: counted on the published base; the others are published rounded, in millions.
PARAMETERS = {"base": 6_377_088, "large": 16.2, "huge": 33.1}
PATHS = {
    "forward": ("forward",),
    "forward_reverse": ("forward", "reverse"),
    "forward_reverse_shuffle": ("forward", "reverse", "shuffle"),
}
OUT_TYPES = ("avg_featmap", "featmap", "raw", "cls_token")


@MODELS.register_module()
class RSMamba(Network):
    """RSMamba backbone.

    Args:
        arch: a name of `ARCHS`, or a dict of embed_dims, num_layers and feedforward_channels (inner width of a layer).
        img_size: (height, width) or side that the position table is made for. Other sizes interpolate it.
        patch_size: side of a patch.
        patch_cfg: options of MMCV's PatchEmbed (published: dict(stride=8), so that patches overlap).
        in_channels: channels of the image.
        cls_position: class token: 'none' (published), 'head', 'middle', 'tail' or 'head_tail' (two).
        out_type: 'avg_featmap' (published): mean over patches, normed; 'featmap': maps (B, C, H, W); 'raw': all tokens;
            'cls_token': mean of two.
        out_indices: layers whose features are returned; -1 is the last.
        pe_type: 'learnable', 'sine' or 'none'.
        path_type: 'forward', or 'forward_reverse' or 'forward_reverse_shuffle' (published) with '_mean' or '_gate'.
        scan: config of a scan order in place of `path_type`'s paths.
        random_eval: draw the shuffled path anew in evaluation too, as published; otherwise every layer has a fixed
            permutation there and results repeat.
        final_norm: norm behind the last layer.
        drop_rate: dropout behind the positions.
        drop_path_rate: highest rate of dropping a layer's result (published: 0).
        frozen_stages: that many layers are frozen, and what is before them; 0 freezes the patch embedding; -1 nothing.
        with_cp: recompute layers in backward to save memory.
        init_cfg: MMEngine's.

    Shape:
        (B, in_channels, height, width) to a tuple of features, one an out index. The image is padded by zeros at the
        bottom and right to whole patches.

    Raises:
        ValueError: an option has a value that is not listed above.
    """

    published_forms: ClassVar = {"": {"patch_cfg": {"stride": 8}}}

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        patch_cfg: dict | None = None,
        in_channels: int = 3,
        cls_position: str = "none",
        out_type: str = "avg_featmap",
        out_indices: int | Sequence[int] = -1,
        pe_type: str = "learnable",
        path_type: str = "forward_reverse_shuffle_gate",
        scan: dict | None = None,
        random_eval: bool = False,
        final_norm: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(embed_dims=None, num_layers=None, feedforward_channels=None)
        settings = arch_settings("RSMamba", ARCHS, arch, given, {})
        self.embed_dims, self.num_layers, inner = (settings[key] for key in given)
        self.cls_position = one_of("cls_position", cls_position, ("none", "head", "middle", "tail", "head_tail"))
        self.out_type = one_of("out_type", out_type, OUT_TYPES)
        self.pe_type = one_of("pe_type", pe_type, ("learnable", "sine", "none"))
        if out_type == "cls_token" and cls_position == "none":
            raise ValueError("out_type: found 'cls_token' with cls_position='none', expected another out_type")
        self.out_indices = checked_indices(out_indices, self.num_layers)
        self.in_channels, self.with_cp = in_channels, with_cp
        self.frozen_stages = checked_frozen(frozen_stages, self.num_layers)
        gated = self._make_orders(path_type, scan, random_eval)

        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        patch = dict(kernel_size=patch_size, stride=patch_size, padding="corner", bias=False, conv_type="Conv2d")
        patch |= dict(in_channels=in_channels, embed_dims=self.embed_dims, input_size=size)
        self.patch_embed = PatchEmbed(**{**patch, **(patch_cfg or {})})
        self.grid = tuple(self.patch_embed.init_out_size)
        tokens = len(self.class_places(self.grid))
        self.cls_token = nn.Parameter(torch.zeros(1, tokens, self.embed_dims)) if tokens else None
        length = self.grid[0] * self.grid[1] + tokens
        self.pos_embed = nn.Parameter(torch.zeros(1, length, self.embed_dims)) if pe_type == "learnable" else None
        self.drop = nn.Dropout(drop_rate)
        self.drop_paths = nn.ModuleList(DropPath(rate) for rate in drop_path_rates(drop_path_rate, self.num_layers))

        self.layers = nn.ModuleList(SharedPathsMamba(self.embed_dims, inner) for _ in range(self.num_layers))
        self.gate_layers = None
        if gated:
            paths = self.orders[0].n_directions
            gates = (nn.Linear(paths * self.embed_dims, paths, bias=False) for _ in range(self.num_layers))
            self.gate_layers = nn.ModuleList(nn.Sequential(gate, nn.Softmax(dim=-1)) for gate in gates)
        # One norm before all layers, as published.
        self.pre_norm = nn.LayerNorm(self.embed_dims, eps=1e-6)
        self.ln1 = nn.LayerNorm(self.embed_dims, eps=1e-6) if final_norm else None
        self.ln2 = nn.LayerNorm(self.embed_dims, eps=1e-6) if out_type == "avg_featmap" else None
        # A classifier's file has a norm of the pooled features, for which other outputs have no use.
        self.published_ignored = ("ln2.*",) if self.ln2 is None else ()

        nn.init.kaiming_normal_(self.patch_embed.projection.weight, nonlinearity="linear")
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._freeze()

    def forward(self, x: Tensor, scores: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Features of images.

        Args:
            x: (B, in_channels, height, width).
            scores: one tensor (L,) a layer in place of a draw: the shuffled path is its stable ascending argsort.
        """
        tokens_BLC, grid, places = self.embed(x)
        outs = []
        for index, layer in enumerate(self.layers):
            order = self._order(index, grid, places, tokens_BLC.device, None if scores is None else scores[index])
            gate = None if self.gate_layers is None else self.gate_layers[index]
            tokens_BLC = tokens_BLC + self.drop_paths[index](self._run(layer, self.pre_norm(tokens_BLC), order, gate))
            if index == self.num_layers - 1 and self.ln1 is not None:
                tokens_BLC = self.ln1(tokens_BLC)
            if index in self.out_indices:
                outs.append(self._read_out(tokens_BLC, grid, places))
        return tuple(outs)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int], tuple[int, ...]]:
        """Tokens (B, L, C) with class tokens and positions, the grid of patches, and the class tokens' places."""
        check_image(x, self.in_channels)
        tokens_BLC, grid = self.patch_embed(x)
        places = self.class_places(grid)
        if self.pe_type == "sine":  # class tokens have no position
            tokens_BLC = tokens_BLC + sine_positions(grid, self.embed_dims, device=x.device).to(tokens_BLC.dtype)
        if places:
            tokens_BLC = insert_tokens(tokens_BLC, self.cls_token, places)
        if self.pos_embed is not None:
            table = resize_with_class_rows(self.pos_embed, self.grid, tuple(grid), self.cls_position)
            tokens_BLC = tokens_BLC + table
        return self.drop(tokens_BLC), tuple(grid), places

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches of an image, which is filled up to whole patches."""
        step = self.patch_embed.projection.stride
        return -(-height // step[0]), -(-width // step[1])

    def class_places(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """Where the class tokens stand among the tokens of this grid of patches."""
        return () if self.cls_position == "none" else class_token_places(self.cls_position, grid[0] * grid[1])

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        """A checkpoint's position table, resampled for this model's grid; other tensors as they are."""
        if name != "pos_embed" or self.pos_embed is None or value.shape[1] == self.pos_embed.shape[1]:
            return value
        tokens = 0 if self.cls_token is None else self.cls_token.shape[1]
        grid = square_grid(value.shape[1] - tokens, name)
        return resize_with_class_rows(value, grid, self.grid, self.cls_position)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths) for layer-wise decay: embeddings 0, layer i and its gate i + 1,
        the rest last."""
        return block_depth(param_name, prefix, self.num_layers)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipe trains without weight decay: none."""
        return set()

    def train(self, mode: bool = True) -> "RSMamba":
        super().train(mode)
        self._freeze()
        return self

    def _make_orders(self, path_type: str, scan: dict | None, random_eval: bool) -> bool:
        """Orders of every layer in training and in evaluation; returns whether a gate fuses them."""
        paths, _, fusion = path_type.rpartition("_")
        if path_type == "forward":
            paths, fusion = "forward", "mean"
        if paths not in PATHS or fusion not in ("mean", "gate"):
            expected = "'forward' or " + ", ".join(f"'{name}_mean', '{name}_gate'" for name in list(PATHS)[1:])
            raise ValueError(f"path_type: found {path_type!r}, expected {expected}")
        if scan is not None:
            self.orders = self.eval_orders = [SCAN_ORDERS.build(scan)] * self.num_layers
        else:
            self.orders = [Shuffle(PATHS[paths])] * self.num_layers
            fixed = [Shuffle(PATHS[paths], seed=layer) for layer in range(self.num_layers)]
            self.eval_orders = self.orders if random_eval else fixed
        return fusion == "gate"

    def _order(
        self, index: int, grid: tuple[int, int], places: tuple[int, ...], device: torch.device, scores: Tensor | None
    ) -> Tensor:
        scan = (self.orders if self.training else self.eval_orders)[index]
        if scores is not None:
            return scan((grid[0] * grid[1] + len(places),), device, scores=scores).indices
        return sequence_order(scan, grid, places, device)

    def _run(self, layer: SharedPathsMamba, x_BLC: Tensor, order: Tensor, gate: nn.Module | None) -> Tensor:
        if self.with_cp and self.training and x_BLC.requires_grad:
            return checkpoint(layer, x_BLC, order, gate, use_reentrant=False)
        return layer(x_BLC, order, gate)

    def _read_out(self, tokens_BLC: Tensor, grid: tuple[int, int], places: tuple[int, ...]) -> Tensor:
        if self.out_type == "raw":
            return tokens_BLC
        patches_BMC, class_BTC = split_tokens(tokens_BLC, places)
        if self.out_type == "cls_token":
            return class_BTC.mean(1)
        if self.out_type == "featmap":
            return patches_BMC.transpose(1, 2).unflatten(2, grid).contiguous()
        return self.ln2(patches_BMC.mean(1))

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for parameter in (self.pos_embed, self.cls_token):
            if parameter is not None:
                parameter.requires_grad_(False)
        gates = self.gate_layers[: self.frozen_stages] if self.gate_layers is not None else ()
        layers = (*self.layers[: self.frozen_stages], *self.drop_paths[: self.frozen_stages])
        for module in (self.patch_embed, self.drop, *layers, *gates):
            module.eval().requires_grad_(False)
