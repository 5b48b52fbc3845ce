"""MambaIRv2 (Guo et al., CVPR 2025, arXiv 2411.15269): window attention and one scan over pixels sorted by class.

Legend: B batch, H, W rows and columns, C features, L pixels of the padded image, T classes.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.conv_ffn import FFNS, make_ffn
from mamba_vision.models.layers.dimensions import per_axis
from mamba_vision.models.layers.mirror_padding import cut_to, mirror_to
from mamba_vision.models.layers.options import check_image, one_of
from mamba_vision.models.layers.restoration_frame import FRAME_RENAMES, ResidualGroup, RestorationFrame
from mamba_vision.models.layers.window_attention import WindowAttention, relative_positions, shift_bias
from mamba_vision.models.mixers.semantic_scan import SemanticScan
from mamba_vision.registry import MODELS

_ROUTE = dict(d_state=16, mlp_ratio=2.0, inner_rank=64, num_tokens=128)
_SMALL = dict(_ROUTE, embed_dim=132, depths=(4,) * 6, num_heads=4, upsampler="pixelshuffle")
_BASE = dict(_ROUTE, embed_dim=174, depths=(6,) * 6, num_heads=6, upsampler="pixelshuffle")
_LARGE = dict(_BASE, depths=(6,) * 9)
_SAME_SIZE = dict(_BASE, upsampler="none", upscale=1)
_LIGHT = dict(
    embed_dim=48, depths=(5,) * 4, num_heads=4, d_state=8, mlp_ratio=1.0, inner_rank=32, num_tokens=64, ffn="gated",
    upsampler="pixelshuffledirect",
)  # fmt: skip
_TINY = dict(
    embed_dim=24, depths=(2, 1), num_heads=2, window_size=8, d_state=4, mlp_ratio=1.0, inner_rank=8, num_tokens=8
)
ARCHS = {
    f"{name}_x{scale}": dict(settings, upscale=scale)
    for name, settings in (("small", _SMALL), ("base", _BASE), ("large", _LARGE), ("light", _LIGHT))
    for scale in (2, 3, 4)
}
ARCHS |= {
    "denoise_color": dict(_SAME_SIZE, in_channels=3),
    "denoise_gray": dict(_SAME_SIZE, in_channels=1),
    "jpeg_gray": dict(_SAME_SIZE, in_channels=1),
    "jpeg_color": dict(_SAME_SIZE, in_channels=3),
    # for tests and demonstrations
    "tiny": dict(_TINY, ffn="gated", upsampler="pixelshuffledirect", upscale=2),
    "tiny_denoise": dict(_TINY, upsampler="none", upscale=1),
}
# Of the published variants.
PARAMETERS = {
    "small_x2": 9_621_935, "small_x3": 9_806_575, "small_x4": 9_769_647,
    "base_x2": 22_903_001, "base_x3": 23_087_641, "base_x4": 23_050_713,
    "large_x2": 34_090_523, "large_x3": 34_275_163, "large_x4": 34_238_235,
    "light_x2": 774_092, "light_x3": 780_587, "light_x4": 789_680,
    "denoise_color": 22_657_971, "jpeg_gray": 22_651_705,
}  # fmt: skip


@MODELS.register_module()
class MambaIRv2(RestorationFrame):
    """MambaIRv2 and MambaIRv2Light; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings below.
        in_channels: 3 (RGB) or 1 (gray).
        embed_dim: width C of the tokens.
        depths: layers of every residual group.
        num_heads: heads of the window attention, one number or one a group.
        window_size: side of a window; images are mirrored up to a multiple of it inside.
        d_state: states of the scans.
        mlp_ratio: inner width of scans and feed-forward layers over C.
        inner_rank: rank of the prompts' table.
        num_tokens: classes T that the pixels are sorted into.
        convffn_kernel_size: side of the depthwise convolution in the feed-forward layers of ffn 'conv'; that of 'gated'
            is always 5, as published.
        ffn: 'conv', or 'gated' as in the light variants.
        upscale: how many times larger the result is.
        upsampler: 'pixelshuffle', 'pixelshuffledirect', 'nearest+conv', or 'none' for results of the input's size.
        img_range: factor on the values inside.
        resi_connection: '1conv' or '3conv'.
        route_noise: 'training' (default): Gumbel noise on the classes while training, none in evaluation; 'always': as
            the published code, whose results differ from call to call; 'never'.
        stable_sort: pixels of one class keep the order of the image, so that every machine computes the same; False
            (default): their order is that of PyTorch's sort on this machine, as published.
        qkv_bias: whether queries, keys and values have a bias.
        ape: learned positions, which fix the size of the image to `img_size`; all published weights are without.
        img_size: rows and columns of these positions, a number or two.
        patch_norm: LayerNorm of the first tokens; all published weights are with.
        with_cp: gradient checkpointing of the layers, for less memory in training.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Shape:
        (B, in_channels, H, W) in [0, 1] to (B, in_channels, upscale * H, upscale * W).

    Raises:
        ValueError: a setting is missing, unknown or has a bad value.
    """

    published_renames = (*FRAME_RENAMES, ("layers.*.residual_group.layers.**", "layers.*.blocks.**"))
    # Computed from the window's side.
    published_ignored = ("relative_position_index_SA",)

    def __init__(
        self,
        arch: str | dict | None = None,
        in_channels: int | None = None,
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: int | Sequence[int] | None = None,
        window_size: int | None = None,
        d_state: int | None = None,
        mlp_ratio: float | None = None,
        inner_rank: int | None = None,
        num_tokens: int | None = None,
        convffn_kernel_size: int | None = None,
        ffn: str | None = None,
        upscale: int | None = None,
        upsampler: str | None = None,
        img_range: float | None = None,
        resi_connection: str | None = None,
        route_noise: str | None = None,
        stable_sort: bool | None = None,
        qkv_bias: bool | None = None,
        ape: bool | None = None,
        img_size: int | Sequence[int] | None = None,
        patch_norm: bool | None = None,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        given = dict(
            in_channels=in_channels, embed_dim=embed_dim, depths=depths, num_heads=num_heads, window_size=window_size,
            d_state=d_state, mlp_ratio=mlp_ratio, inner_rank=inner_rank, num_tokens=num_tokens,
            convffn_kernel_size=convffn_kernel_size, ffn=ffn, upscale=upscale, upsampler=upsampler,
            img_range=img_range, resi_connection=resi_connection, route_noise=route_noise,
            stable_sort=stable_sort, qkv_bias=qkv_bias, ape=ape, img_size=img_size, patch_norm=patch_norm,
        )  # fmt: skip
        defaults = dict(
            in_channels=3, window_size=16, convffn_kernel_size=5, ffn="conv", img_range=1.0, resi_connection="1conv",
            route_noise="training", stable_sort=False, qkv_bias=True, ape=False, img_size=64,
            patch_norm=True,
        )  # fmt: skip
        s = arch_settings("MambaIRv2", ARCHS, arch, given, defaults)
        layer_settings = {
            key: s[key]
            for key in ("window_size", "d_state", "mlp_ratio", "inner_rank", "num_tokens", "convffn_kernel_size", "ffn",
                        "route_noise", "stable_sort", "qkv_bias")
        }  # fmt: skip
        heads = [s["num_heads"]] * len(s["depths"]) if isinstance(s["num_heads"], int) else list(s["num_heads"])
        if len(heads) != len(s["depths"]):
            raise ValueError(f"num_heads: expected a number or {len(s['depths'])}, one a group, found {heads}")
        groups = [
            ResidualGroup(
                [AttentiveLayer(s["embed_dim"], count, shifted=bool(i % 2), **layer_settings) for i in range(depth)],
                s["embed_dim"],
                s["resi_connection"],
                with_cp,
            )
            for depth, count in zip(s["depths"], heads)
        ]
        super().__init__(
            groups, s["in_channels"], s["embed_dim"], s["upscale"], s["upsampler"], s["img_range"],
            s["resi_connection"], init_cfg, per_axis("img_size", s["img_size"], 2) if s["ape"] else None,
            s["patch_norm"],
        )  # fmt: skip
        self.window_size = s["window_size"]
        self.register_buffer("positions", relative_positions(self.window_size), persistent=False)

    def forward(self, x: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """See the class.

        Args:
            noise: one (B, L, T) a layer, added to the class logits; default: what `route_noise` says.
        """
        check_image(x, self.in_channels)
        size, window = x.shape[2:], self.window_size
        grid = [(side + window - 1) // window * window for side in size]
        noises = iter([None] * self.n_layers if noise is None else noise)
        bias_NTT = shift_bias(grid, window, window // 2, x.device)
        padded = mirror_to(x, grid, repeat_edge=True)
        y = self.restore(padded, lambda x_BHWC: self._body(x_BHWC, bias_NTT, noises))
        return cut_to(y, [side * self.upscale for side in size])

    @staticmethod
    def explain_misfit(state: Mapping[str, Tensor]) -> str | None:
        """Why weights that do not fit probably do not: a sentence for the error, or None."""
        if any(".self_attention.x_proj_weight" in name for name in state):
            return (
                "These are weights of MambaIR (or MambaIRUNet); published real super-resolution weights are such, too"
            )
        return None

    @property
    def n_layers(self) -> int:
        """How many layers there are in all groups."""
        return sum(len(group.blocks) for group in self.layers)

    def _body(self, x_BHWC: Tensor, shift_bias_NTT: Tensor, noises: Iterator[Tensor | None]) -> Tensor:
        for group in self.layers:
            x_BHWC = group(x_BHWC, [(self.positions, shift_bias_NTT, next(noises)) for _ in group.blocks])
        return x_BHWC


class AttentiveLayer(nn.Module):
    """Window attention, then a scan over pixels sorted by class, each with a feed-forward layer and a scaled shortcut.

    Args:
        channels: C.
        shifted: the windows are moved by half their side.
        others: see `MambaIRv2`.

    Shape:
        (B, H, W, C) to (B, H, W, C); the window's side divides H and W.
    """

    def __init__(
        self, channels: int, num_heads: int, window_size: int, shifted: bool, d_state: int, mlp_ratio: float,
        inner_rank: int, num_tokens: int, convffn_kernel_size: int = 5, ffn: str = "conv",
        route_noise: str = "training", stable_sort: bool = False, qkv_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        one_of("ffn", ffn, tuple(FFNS))
        hidden = int(channels * mlp_ratio)
        for number in range(1, 5):
            self.add_module(f"norm{number}", nn.LayerNorm(channels))
        self.wqkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.win_mhsa = WindowAttention(channels, num_heads, window_size, window_size // 2 if shifted else 0)
        self.assm = SemanticScan(channels, hidden, d_state, inner_rank, num_tokens, route_noise, stable_sort)
        self.convffn1, self.convffn2 = (make_ffn(ffn, channels, hidden, convffn_kernel_size) for _ in range(2))
        self.embeddingA = nn.Embedding(inner_rank, d_state)
        nn.init.uniform_(self.embeddingA.weight, -1 / inner_rank, 1 / inner_rank)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((channels,), 1e-4)) for _ in range(2))

    def forward(
        self, x_BHWC: Tensor, positions_TT: Tensor, shift_bias_NTT: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """`positions_TT`, `shift_bias_NTT`: see `WindowAttention`; `noise`: see `SemanticScan`."""
        y = self.win_mhsa(self.wqkv(self.norm1(x_BHWC)), positions_TT, shift_bias_NTT) + x_BHWC
        y = self.convffn1(self.norm2(y)) + y
        x1 = self.scale1 * x_BHWC + y
        y = self.assm(self.norm3(x1), self.embeddingA.weight, noise) + x1
        y = self.convffn2(self.norm4(y)) + y
        return self.scale2 * x1 + y
