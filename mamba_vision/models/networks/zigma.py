"""ZigMa (Hu et al., ECCV 2024, arXiv 2403.13802): a diffusion network whose layers walk the tokens on different paths.

Legend of the suffixes: B batch, T frames, L tokens (of all frames, frame by frame, row by row), N text tokens,
C channels, H, W rows and columns of the picture.
"""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamba_vision.models.base import Network
from mamba_vision.models.layers.add_norm_block import make_norm
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.conditioning import ClassEmbedding, TimeEmbedding
from mamba_vision.models.layers.drop_path import drop_path_rates
from mamba_vision.models.layers.modulated_block import FinalLayer, ZigMaBlock
from mamba_vision.models.layers.options import one_of
from mamba_vision.models.layers.positions import resize_positions
from mamba_vision.models.layers.sine_positions import sine_positions
from mamba_vision.models.networks.zigma_orders import layer_orders
from mamba_vision.registry import MODELS, SCAN_ORDERS
from mamba_vision.scan_orders import grid_orders

SIZES = {"s": (368, 24), "b": (768, 24), "m": (768, 48), "l": (1024, 48), "h": (1536, 48)}
ARCHS = {
    "tiny": dict(embed_dims=32, num_layers=4, patch_size=1, img_size=8),
    **{
        f"{size}_{patch}": dict(embed_dims=width, num_layers=layers, patch_size=patch)
        for size, (width, layers) in SIZES.items()
        for patch in ((2, 4) if size == "m" else (1, 2, 4))
    },
}
_BASE = dict(embed_dims=768, num_layers=24, positions="learned")
_VIDEO = dict(_BASE, patch_size=2, frames=16, num_classes=101)
ARCHS |= {  # the configurations that were trained and published
    "sweep2_b1_pe2": dict(_BASE, patch_size=1, scan_type="v2"),
    "zigzag8_b1_pe2": dict(_BASE, patch_size=1),
    "s1024_zigzag8_b2_old": dict(_BASE, patch_size=2, img_size=128, positions="none"),
    "3d_sweep2_b2": dict(_VIDEO, scan_type="v2"),
    "3d_zigzag8sst_b2": dict(_VIDEO, scan_type="zzvideo_sst"),
}
DEFAULTS = dict(
    patch_size=2, img_size=32, in_channels=4, scan_type="zigzagN8", positions="none", frames=0, num_classes=0,
    text_channels=0,
)  # fmt: skip
# In millions, of 4 channels of 32 x 32 unless the arch says otherwise.
PARAMETERS = {
    "s_2": 31.3, "b_2": 133.9, "m_2": 266.9, "l_2": 472.5, "h_2": 1058.7,
    "sweep2_b1_pe2": 140.19, "zigzag8_b1_pe2": 134.62426, "s1024_zigzag8_b2_old": 133.86,
    "3d_sweep2_b2": 142.65, "3d_zigzag8sst_b2": 137.08,
}  # fmt: skip


@MODELS.register_module()
class ZigMa(Network):
    """ZigMa: from noisy pictures (latents, clips), times and conditions to velocities, scores or noises.

    Args:
        arch: a name of `ARCHS`, or a dict of embed_dims, num_layers and any of the options up to text_channels.
        patch_size: side of a patch.
        img_size: (height, width) or side of the pictures that the position table is made for; other sizes work too.
        in_channels: channels of the pictures, and of what comes out.
        scan_type: a family of scan orders by its published name, see `zigma_orders.layer_orders`.
        positions: 'none', 'sine' (fixed, pictures only) or 'learned' (for clips one table over all frames' tokens).
        frames: of a clip; 0 for pictures.
        num_classes: rows of the table of classes; 0: no class condition.
        text_channels: width of the text features; 0: no text condition.
        time_positions: learned positions of frames, besides `positions` (published as tpe).
        scan: config of a scan order, the same for every layer, in place of `scan_type`.
        scan_seed: of the random paths. Published training drew its own, from seed 0 in the first process.
        as_published: see `zigma_orders.layer_orders`.
        null_class: give the table of classes one more row, which stands for no class: needed for guidance. Published
            models have none.
        mixer: options of `BidirectionalMamba`, such as d_state (published as ssm_cfg).
        norm: 'rms' or 'ln'.
        norm_eps: of the blocks' norms and the last one.
        drop_path_rate: highest rate of dropping a block's output.
        with_cp: recompute blocks in backward to save memory.
        init_cfg: MMEngine's.

    Shape:
        (B, in_channels, H, W), or (B, T, in_channels, H, W) for clips, to the same. H and W: multiples of patch_size.

    Raises:
        ValueError: an option has a value that is not listed above, or two exclude each other.
    """

    def __init__(
        self,
        arch: str | dict | None = "b_2",
        patch_size: int | None = None,
        img_size: int | tuple[int, int] | None = None,
        in_channels: int | None = None,
        scan_type: str | None = None,
        positions: str | None = None,
        frames: int | None = None,
        num_classes: int | None = None,
        text_channels: int | None = None,
        time_positions: bool = False,
        scan: object | None = None,
        scan_seed: int = 0,
        as_published: bool = True,
        null_class: bool = False,
        mixer: dict | None = None,
        norm: str = "rms",
        norm_eps: float = 1e-5,
        drop_path_rate: float = 0.1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            embed_dims=None, num_layers=None, patch_size=patch_size, img_size=img_size, in_channels=in_channels,
            scan_type=scan_type, positions=positions, frames=frames, num_classes=num_classes,
            text_channels=text_channels,
        )  # fmt: skip
        settings = arch_settings("ZigMa", ARCHS, arch, given, DEFAULTS)
        width, depth = self.embed_dims, self.num_layers = settings["embed_dims"], settings["num_layers"]
        self.patch_size, self.in_channels = settings["patch_size"], settings["in_channels"]
        self.frames, self.num_classes = settings["frames"], settings["num_classes"]
        self.text_channels, self.null_class = settings["text_channels"], null_class
        self.positions = one_of("positions", settings["positions"], ("none", "sine", "learned"))
        size = settings["img_size"]
        self.img_size = (size, size) if isinstance(size, int) else tuple(size)
        self.grid = self.token_grid(self.img_size)
        self.with_cp = with_cp
        self._check(time_positions)

        self.x_embedder = nn.Module()
        self.x_embedder.proj = nn.Conv2d(self.in_channels, width, self.patch_size, self.patch_size)
        self.t_embedder = TimeEmbedding(width)
        if self.text_channels:
            self.y_embedder = nn.Linear(self.text_channels, width)
        elif self.num_classes:
            self.y_embedder = ClassEmbedding(self.num_classes + null_class, width)
        length = max(self.frames, 1) * self.grid[0] * self.grid[1]
        if self.positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, length, width))
        elif self.positions == "sine":
            self.published_ignored = ("pos_embed",)  # computed, whatever a file says
        if time_positions:
            self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, self.frames, width))
        self.time_positions = time_positions

        same = SCAN_ORDERS.build(scan) if scan is not None else None
        self.orders = [same] * depth if same else layer_orders(settings["scan_type"], depth, scan_seed, as_published)
        rates = [0.0, *drop_path_rates(drop_path_rate, depth)]  # of what comes in: block i drops block i - 1's output
        self.blocks = nn.ModuleList(
            ZigMaBlock(width, order, mixer, bool(self.text_channels), norm, norm_eps, rate)
            for order, rate in zip(self.orders, rates)
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm_f = make_norm(norm, width, norm_eps)
        self.final_layer = FinalLayer(width, self.patch_size**2 * self.in_channels)
        self._start()

    def forward(self, x: Tensor, times: Tensor, condition: Tensor | None = None) -> Tensor:
        """What the network says of x at these times.

        Args:
            x: (B, in_channels, H, W), or (B, T, in_channels, H, W) for clips.
            times: (B,), 0 for noise to 1 for data.
            condition: (B,) class numbers, int64 (`num_classes` itself for none, with null_class); or text features
                (B, N, text_channels), as many tokens as there are; None where the network knows no condition.

        Raises:
            ValueError: x or the condition does not suit the network.
        """
        grid = self._checked_grid(x)
        frames_NCHW = x.flatten(0, 1) if self.frames else x
        tokens = self.x_embedder.proj(frames_NCHW).flatten(2).transpose(1, 2)
        tokens_BLC = tokens.reshape(x.shape[0], -1, self.embed_dims) + self._positions(grid, tokens)
        condition_BC, text_BNC = self._conditions(times, condition)
        residual_BLC, whole = None, ((x.shape[1], *grid) if self.frames else grid)
        for block, scan in zip(self.blocks, self.orders):
            # Orders of pictures read a clip frame by frame, as one tall picture.
            axes = whole if len(whole) in scan.grid_ranks else (whole[0] * whole[1], whole[2])
            given = (tokens_BLC, residual_BLC, condition_BC, grid_orders(scan, axes, x.device), text_BNC)
            recompute = self.with_cp and self.training and torch.is_grad_enabled()
            tokens_BLC, residual_BLC = checkpoint(block, *given, use_reentrant=False) if recompute else block(*given)
        tokens_BLC = self.norm_f((residual_BLC + self.drop_path(tokens_BLC)).to(self.norm_f.weight.dtype))
        return self._pixels(self.final_layer(tokens_BLC), x.shape, grid)

    def token_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens of a picture.

        Raises:
            ValueError: the patches do not fill it.
        """
        if len(size) != 2 or any(side < self.patch_size or side % self.patch_size for side in size):
            raise ValueError(
                f"size of the picture: found {tuple(size)}, expected multiples of patch_size {self.patch_size}"
            )
        return size[0] // self.patch_size, size[1] // self.patch_size

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        """A checkpoint's position table resampled for this model's square or oblong grid; other tensors as they are."""
        if name != "pos_embed" or self.positions != "learned" or value.shape[1] == self.pos_embed.shape[1]:
            return value
        per_frame = value.shape[1] / max(self.frames, 1)
        side = round(per_frame**0.5)
        return self._resized(value, (side, side), self.grid) if side * side == per_frame else value

    def no_condition(self, condition: Tensor) -> Tensor:
        """The condition that stands for none, for guidance: the null class, or text features of zeros.

        Raises:
            ValueError: there is no such class.
        """
        if self.text_channels:
            return torch.zeros_like(condition)
        if not self.null_class:
            raise ValueError("null_class: this network was built without one, as published, so it cannot be guided")
        return torch.full_like(condition, self.num_classes)

    def _check(self, time_positions: bool) -> None:
        if self.text_channels and self.num_classes:
            raise ValueError(
                f"num_classes and text_channels: found {self.num_classes} and {self.text_channels}, give one"
            )
        if self.null_class and not self.num_classes:
            raise ValueError("null_class: found True without num_classes")
        if self.frames and self.positions == "sine":
            raise ValueError("positions: found 'sine' with frames, expected 'none' or 'learned'")
        if time_positions and not self.frames:
            raise ValueError("time_positions: found True without frames")

    def _checked_grid(self, x: Tensor) -> tuple[int, int]:
        shape, axes = tuple(x.shape), 5 if self.frames else 4
        if x.ndim != axes or shape[-3] != self.in_channels:
            wanted = "(batch, frames, " if self.frames else "(batch, "
            raise ValueError(f"x: found shape {shape}, expected {wanted}{self.in_channels}, height, width)")
        if self.frames and shape[1] != self.frames and (self.positions == "learned" or self.time_positions):
            raise ValueError(f"x: found {shape[1]} frames, expected {self.frames}, as learned positions know no others")
        return self.token_grid(shape[-2:])

    def _conditions(self, times: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        c_BC = self.t_embedder(times)
        kind = "text features" if self.text_channels else "class numbers"
        conditional = bool(self.text_channels or self.num_classes)
        if condition is None and conditional:
            raise ValueError(f"condition: found none, expected {kind}")
        if condition is not None and not conditional:
            raise ValueError("condition: found one, but this network has neither num_classes nor text_channels")
        if condition is None:
            return c_BC, None
        wanted = (len(times), self.text_channels) if self.text_channels else (len(times),)
        found = (condition.shape[0], *condition.shape[2:]) if self.text_channels else tuple(condition.shape)
        if found != wanted or condition.is_floating_point() != bool(self.text_channels):
            shape = "(batch, tokens, text_channels)" if self.text_channels else "(batch,)"
            raise ValueError(f"condition: found {condition.dtype} {tuple(condition.shape)}, expected {kind} {shape}")
        y = self.y_embedder(condition)
        return (c_BC + y.mean(1), y) if self.text_channels else (c_BC + y, None)

    def _positions(self, grid: tuple[int, int], like: Tensor) -> Tensor | float:
        total = 0.0
        if self.positions == "sine":
            # Columns first: the shared table with its axes exchanged gives rows first.
            table = sine_positions((grid[1], grid[0]), self.embed_dims, device=like.device)
            total = table.roll(self.embed_dims // 2, -1).to(like.dtype)
        elif self.positions == "learned":
            total = self._resized(self.pos_embed, self.grid, grid)
        if self.time_positions:
            total = total + self.temporal_pos_embedding.repeat_interleave(grid[0] * grid[1], dim=1)
        return total

    def _resized(self, table_1LC: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
        per_frame = table_1LC.reshape(max(self.frames, 1), -1, self.embed_dims)
        return resize_positions(per_frame, grid, new_grid).reshape(1, -1, self.embed_dims)

    def _pixels(self, patches: Tensor, shape: torch.Size, grid: tuple[int, int]) -> Tensor:
        x = patches.reshape(-1, *grid, self.patch_size, self.patch_size, self.in_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(shape)

    @torch.no_grad()
    def _start(self) -> None:
        """Published initialization, on top of PyTorch's and the mixers' own."""
        for module in self.modules():
            if (
                isinstance(module, nn.Linear)
                and module.bias is not None
                and not getattr(module.bias, "_no_reinit", False)
            ):
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            block.mixer.out_proj.weight /= self.num_layers**0.5
            nn.init.zeros_(block.adaLN_modulation[1].weight)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.embed_dims, -1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        for index in (0, 2):
            nn.init.normal_(self.t_embedder.mlp[index].weight, std=0.02)
        if self.num_classes:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
