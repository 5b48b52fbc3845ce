"""VMamba's 2-D selective scan layer, SS2D (Liu et al., NeurIPS 2024, arXiv 2401.10166, figures 2 and 3).

Legend: B batch, H, W rows and columns, L = H * W tokens, C model width, D inner width, K directions, R step rank,
N states, P = R + 2N. Everything stays channels-last; the K reordered copies of the published code are never made.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import ordered_scan
from mamba_vision.models.layers.activations import activation
from mamba_vision.models.layers.channels_last import ToChannelsFirst, ToChannelsLast
from mamba_vision.models.layers.fused_norm import TokenNorm, norm_tokens_by
from mamba_vision.models.layers.recompute import recomputed
from mamba_vision.models.mixers.branch import step_rank
from mamba_vision.models.mixers.init import inverse_softplus, log_uniform_steps, s4d_real_log
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS, SCAN_ORDERS
from mamba_vision.scan_orders import fold, gather_tokens, grid_orders, return_as_published, unfold

OUT_NORMS = ("ln", "none", "dwconv3", "cnorm", "softmax", "sigmoid")


class OutNorm(nn.Module):
    """The norms without parameters that VMamba's ablations put behind the scan, over (B, H, W, D)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, y_BHWD: Tensor) -> Tensor:
        if self.kind == "sigmoid":
            return y_BHWD.sigmoid()
        return y_BHWD.flatten(1, 2).softmax(dim=1).view_as(y_BHWD)  # over all positions, a channel


def make_out_norm(kind: str, channels: int) -> nn.Module:
    """The norm behind the merged scans, by its name in `OUT_NORMS`; indices as in published checkpoints.

    Raises:
        ValueError: another name.
    """
    if kind not in OUT_NORMS:
        raise ValueError(f"out_norm: found {kind!r}, expected one of {', '.join(OUT_NORMS)}")

    def conv() -> tuple[nn.Module, ...]:
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        return ToChannelsFirst(), depthwise, ToChannelsLast()

    if kind == "dwconv3":
        return nn.Sequential(*conv())
    if kind == "cnorm":
        return nn.Sequential(nn.LayerNorm(channels), *conv())
    if kind == "ln":
        return TokenNorm(channels)
    return nn.Identity() if kind == "none" else OutNorm(kind)


class Mixer2d(nn.Module):
    """What VMamba's mixers have around their scan: projections, depthwise convolution, gate and output norm.

    Args:
        d_model: width C of the tokens.
        ssm_ratio: D = int(ssm_ratio * d_model).
        act: activation behind the convolution and of the gate.
        d_conv: side of the depthwise convolution; below 2 there is none.
        conv_bias: whether it has a bias.
        gate: a second half of the input projection multiplies the result (published without: `_noz`).
        gate_act: whether that half goes through the activation.
        out_norm: norm of the merged scans, one of `OUT_NORMS`.
        out_act: GELU behind it.
        drop: dropout of the result.

    Shape:
        (B, H, W, C) to (B, H, W, C).
    """

    def __init__(
        self, d_model: int, ssm_ratio: float = 2.0, act: str = "silu", d_conv: int = 3, conv_bias: bool = True,
        gate: bool = True, gate_act: bool = True, out_norm: str = "ln", out_act: bool = False, drop: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.d_inner = channels = int(ssm_ratio * d_model)
        self.in_proj = nn.Linear(d_model, 2 * channels if gate else channels, bias=False)
        self.gate, self.gate_act, self.out_act = gate, gate_act, out_act
        self.act = activation(act)()
        self.conv2d = None
        if d_conv > 1:
            self.conv2d = nn.Conv2d(
                channels, channels, d_conv, padding=(d_conv - 1) // 2, groups=channels, bias=conv_bias
            )
        self.out_norm = make_out_norm(out_norm, channels)
        self.out_proj = nn.Linear(channels, d_model, bias=False)
        self.drop = nn.Dropout(drop)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWD, z_BHWD = self.before_scan(x_BHWC)
        y_BHWD = norm_tokens_by(self.out_norm, self.mix(x_BHWD), for_linear=True).to(x_BHWD.dtype)
        if self.out_act:
            y_BHWD = F.gelu(y_BHWD)
        if z_BHWD is not None:
            y_BHWD = y_BHWD * z_BHWD
        return self.drop(self.out_proj(y_BHWD))

    def before_scan(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        """The scan's input and the gate, (B, H, W, D) each."""
        x_BHWD, z_BHWD = self.in_proj(x_BHWC), None
        if self.gate:
            x_BHWD, z_BHWD = x_BHWD.chunk(2, dim=-1)
            z_BHWD = self.act(z_BHWD) if self.gate_act else z_BHWD
        return recomputed(self._convolve, x_BHWD), z_BHWD

    def _convolve(self, x_BHWD: Tensor) -> Tensor:
        if self.conv2d is not None:
            x_BHWD = self.conv2d(x_BHWD.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.act(x_BHWD)

    def mix(self, x_BHWD: Tensor) -> Tensor:
        """The scans, merged, (B, H, W, D)."""
        raise NotImplementedError


@MIXERS.register_module()
class SS2D(Mixer2d):
    """Scans along K orders of the map's pixels, added. Parameter names and shapes are those of published checkpoints.

    Args:
        d_model: width C of the tokens.
        d_state: states N a channel.
        dt_rank: rank R of the step sizes; 'auto' is ceil(d_model / 16).
        ssm_init: 'v0' (as Mamba), 'v1' (normal) or 'v2' (zeros and uniform).
        scan: config of the scan order; there are as many parameter sets as it has directions.
        options: of `Mixer2d`.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, dt_rank: int | str = "auto", ssm_init: str = "v0",
        scan: dict | None = None, **options,
    ) -> None:  # fmt: skip
        super().__init__(d_model, **options)
        self.scan = SCAN_ORDERS.build(scan or {"type": "cross"})
        self._add_directions(d_model, self.scan.n_directions, d_state, dt_rank, ssm_init)

    def _add_directions(self, d_model: int, directions: int, d_state: int, dt_rank: int | str, ssm_init: str) -> None:
        self.d_state, self.dt_rank = d_state, step_rank(dt_rank, d_model)
        channels, bound = self.d_inner, self.d_inner**-0.5
        shape = (directions, self.dt_rank + 2 * d_state, channels)
        self.x_proj_weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        weight, bias, rates = start_of_steps(ssm_init, directions, channels, self.dt_rank, d_state)
        self.dt_projs_weight, self.dt_projs_bias = nn.Parameter(weight), nn.Parameter(bias)
        self.A_logs, self.Ds = nn.Parameter(rates), nn.Parameter(torch.ones(directions * channels))

    def mix(self, x_BHWD: Tensor) -> Tensor:
        orders = grid_orders(self.scan, tuple(x_BHWD.shape[1:3]), x_BHWD.device)
        lines = fold(x_BHWD.flatten(1, 2), orders)  # all of the map, but for orders that read each line by itself
        y_BLD = ordered_scan(**self._arguments(lines), order=orders.indices, merge="sum")
        return unfold(y_BLD, orders).view(x_BHWD.shape)

    def _arguments(self, x_BLD: Tensor, first: int = 0, last: int | None = None) -> dict:
        """Arguments of `ordered_scan` for the directions first .. last - 1, with step sizes, B and C a token."""
        chosen = slice(first, last)
        p_BLKP = F.linear(x_BLD, self.x_proj_weight[chosen].flatten(0, 1)).unflatten(
            -1, (-1, self.x_proj_weight.shape[1])
        )
        dt_BLKR, B_BLKN, C_BLKN = p_BLKP.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        directions = self.x_proj_weight.shape[0]
        A_logs = self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32))
        if x_BLD.dtype == torch.float16:
            # The sum of the directions' results may pass float16's range: it stays in float32 until it is normed.
            x_BLD = x_BLD.float()
        return dict(
            x=x_BLD,
            dt=dt_BLKR,
            dt_weight=self.dt_projs_weight[chosen],
            A=-A_logs.exp().unflatten(0, (directions, -1))[chosen],
            B=B_BLKN,
            C=C_BLKN,
            D=self.Ds.unflatten(0, (directions, -1))[chosen],
            dt_bias=self.dt_projs_bias[chosen],
            rows="tokens",
        )

    def scan_inputs(self, x_BHWC: Tensor) -> ScanInputs:
        """What `forward` would scan with, every sequence in its order. The gate is not a part of the scan here."""
        x_BHWD, _ = self.before_scan(x_BHWC)
        orders = grid_orders(self.scan, tuple(x_BHWD.shape[1:3]), x_BHWD.device)
        given = self._arguments(fold(x_BHWD.flatten(1, 2), orders))
        dt_BLKD = torch.einsum("blkr,kdr->blkd", given["dt"], given["dt_weight"]).float()
        rows = (torch.stack([gather_tokens(t[:, :, k], orders)[:, k] for k in range(t.shape[2])], 1)
                for t in (dt_BLKD, given["B"], given["C"]))  # fmt: skip
        delta, B, C = (t.transpose(2, 3) for t in rows)
        delta = F.softplus(delta + given["dt_bias"].float().unsqueeze(-1))  # zero tokens have a step too: the bias's
        u = gather_tokens(given["x"], orders).transpose(2, 3)
        return ScanInputs(u, delta, given["A"], B, C, given["D"], None, orders.indices)


@MIXERS.register_module()
class CascadeSS2D(SS2D):
    """VMamba's cascade ablation (`v052dc`): every row is read both ways, then every column of the result.

    Before each pass a LayerNorm without parameters. Directions 0 and 1 of the parameters read rows, 2 and 3 columns.

    Args:
        turn_back: put backward results where they belong; the published code, and so its checkpoints, do not.
        d_model, d_state, dt_rank, ssm_init, options: as for `SS2D`.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, dt_rank: int | str = "auto", ssm_init: str = "v0",
        turn_back: bool = False, **options,
    ) -> None:  # fmt: skip
        Mixer2d.__init__(self, d_model, **options)
        self.passes = [
            SCAN_ORDERS.build({"type": "cascade", "along": along, "turn_back": turn_back})
            for along in ("rows", "columns")
        ]
        self._add_directions(d_model, 4, d_state, dt_rank, ssm_init)

    def mix(self, x_BHWD: Tensor) -> Tensor:
        grid = tuple(x_BHWD.shape[1:3])
        x_BLD = x_BHWD.flatten(1, 2)
        for number, scan in enumerate(self.passes):
            orders = scan(grid, x_BHWD.device)
            lines = fold(F.layer_norm(x_BLD, x_BLD.shape[-1:]), orders)
            given = self._arguments(lines, 2 * number, 2 * number + 2)
            y = ordered_scan(**given, order=orders.indices, merge="none")
            x_BLD = unfold(return_as_published(y, orders).sum(1), orders)
        return x_BLD.view(x_BHWD.shape)

    def scan_inputs(self, x_BHWC: Tensor) -> ScanInputs:
        """Not defined: the two passes scan one after the other."""
        raise NotImplementedError(
            "CascadeSS2D scans twice, one pass behind the other: it has no single set of scan inputs"
        )


def start_of_steps(
    ssm_init: str, directions: int, channels: int, rank: int, state: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How (dt_projs_weight, dt_projs_bias, A_logs) start, by VMamba's names.

    'v0' as Mamba; 'v1' normal; 'v2' zero rates and uniform steps.

    Raises:
        ValueError: another name.
    """
    shape = (directions, channels)
    if ssm_init == "v0":
        weight = torch.empty(*shape, rank).uniform_(-(rank**-0.5), rank**-0.5)
        bias = inverse_softplus(log_uniform_steps(math.prod(shape), 0.001, 0.1, 1e-4)).view(shape)
        return weight, bias, s4d_real_log(directions * channels, state)
    if ssm_init == "v1":
        return 0.1 * torch.randn(*shape, rank), 0.1 * torch.randn(shape), torch.randn(directions * channels, state)
    if ssm_init == "v2":
        return 0.1 * torch.rand(*shape, rank), 0.1 * torch.rand(shape), torch.zeros(directions * channels, state)
    raise ValueError(f"ssm_init: found {ssm_init!r}, expected 'v0', 'v1' or 'v2'")
