"""Vision Mamba's layer (Zhu et al., arXiv 2401.09417, figure 2 and algorithm 1): one projection, several directions.

Every direction convolves and scans the same tokens along its own order, and the directions' gated results are added.
Legend: B batch, L tokens, C model width, E inner width, K directions, R step rank, N states, W conv width,
P = R + 2N. Tokens stay channels-last; no reordered copy of them is made.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import causal_conv1d, ordered_scan
from mamba_vision.models.mixers.branch import add_branch, branch_rates, step_rank
from mamba_vision.models.mixers.directions import directional_inputs, directional_scan
from mamba_vision.models.mixers.init import s4d_real_log
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS, SCAN_ORDERS


def direction_suffixes(directions: int) -> tuple[str, ...]:
    """Suffixes of the parameter sets of K directions: none for the first, the published `_b`, then `_2`, `_3` …"""
    return ("", "_b", *(f"_{k}" for k in range(2, directions)))[:directions]


@MIXERS.register_module()
class BidirectionalMamba(nn.Module):
    """Selective state space layer that reads its tokens along several orders; parameter names are Vim's.

    In a float16 autocast region the layer computes in float32, see `precision`; its output is then float32.

    Args:
        d_model: width C of the tokens.
        d_state: states N a channel.
        d_conv: width W of the causal convolutions.
        expand: E = int(expand * d_model).
        dt_rank: rank R of the step sizes; 'auto' is ceil(d_model / 16).
        bimamba: 'v2': every direction has its own convolution, projections, rates and skip (all published weights).
            'v1': two directions share all of these but the rates, and both read one causal convolution's output.
        scan: config of the scan order. 'v2' has as many parameter sets as it has directions; 'v1' wants two.
        halve: divide the sum by the number of directions before the output projection (published as if_divide_out).
            'v1' never does.
        layer_scale: initial value of a learned factor a channel on the result; None for no such factor.
        conv_bias: whether the convolutions have a bias.
        bias: whether the input and output projections have one.
        dt_min, dt_max, dt_init, dt_scale, dt_init_floor: how the first direction's step sizes start. As published,
            the other directions' step projections start as any Linear does.

    Shape:
        (B, L, C) to (B, L, C).

    Raises:
        ValueError: `bimamba` is unknown, or 'v1' is given an order of another number of directions than two.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        bimamba: str = "v2",
        scan: dict | None = None,
        halve: bool = True,
        layer_scale: float | None = None,
        conv_bias: bool = True,
        bias: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
    ) -> None:
        super().__init__()
        if bimamba not in ("v1", "v2"):
            raise ValueError(f"bimamba: found {bimamba!r}, expected 'v1' or 'v2'")
        self.scan = SCAN_ORDERS.build(scan or {"type": "bidirectional"})
        directions = self.scan.n_directions
        if bimamba == "v1" and directions != 2:
            raise ValueError(f"scan: {self.scan.name!r} has {directions} directions, bimamba 'v1' expects 2")
        self.d_state, self.bimamba = d_state, bimamba
        self.d_inner, self.dt_rank = int(expand * d_model), step_rank(dt_rank, d_model)
        self.divisor = directions if halve and bimamba == "v2" else 1
        self.suffixes = direction_suffixes(directions) if bimamba == "v2" else ("",)

        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        steps = dict(dt_min=dt_min, dt_max=dt_max, dt_init=dt_init, dt_scale=dt_scale, dt_init_floor=dt_init_floor)
        for suffix in self.suffixes:
            add_branch(self, suffix, self.d_inner, d_state, self.dt_rank, d_conv, conv_bias, steps)
            if suffix:
                setattr(self, f"dt_proj{suffix}", nn.Linear(self.dt_rank, self.d_inner))
        if bimamba == "v1":
            self.A_b_log = nn.Parameter(s4d_real_log(self.d_inner, d_state))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        self.gamma = nn.Parameter(torch.full((d_model,), layer_scale)) if layer_scale is not None else None

    def extra_repr(self) -> str:
        return f"{self.bimamba}, scan={self.scan.name!r}, d_state={self.d_state}, dt_rank={self.dt_rank}"

    def forward(self, x_BLC: Tensor, order: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            order: (K, L), the order in which each direction reads the tokens; None: `scan` of a line of L.
        """
        if in_float16_region(x_BLC):
            with torch.autocast(x_BLC.device.type, enabled=False):
                return self.forward(x_BLC.to(self.in_proj.weight.dtype), order)
        order = self._order(x_BLC) if order is None else order
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        if self.bimamba == "v2":
            given = directional_scan(self, self.suffixes, x_BLE, order)
        else:
            given = self._shared(x_BLE, order)
        y_BLE = ordered_scan(**given, z=z_BLE)
        if self.divisor in (2, 4, 8) and self.out_proj.bias is None:
            out_BLC = self.out_proj(y_BLE) / self.divisor  # exact wherever it is done; here is half of the numbers
        else:
            out_BLC = self.out_proj(y_BLE / self.divisor if self.divisor > 1 else y_BLE)
        return out_BLC if self.gamma is None else out_BLC * self.gamma

    def scan_inputs(self, x_BLC: Tensor, order: Tensor | None = None) -> ScanInputs:
        """What `forward` would scan with, every sequence in the order in which its direction reads it."""
        order = self._order(x_BLC) if order is None else order
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        if self.bimamba == "v2":
            return directional_inputs(self, self.suffixes, x_BLE, z_BLE, order)
        given = self._shared(x_BLE, order)
        dt_BKLR, B_BKLN, C_BKLN = (
            torch.stack([given[name][:, path, k] for k, path in enumerate(order)], dim=1) for name in ("dt", "B", "C")
        )
        delta_BKLE = dt_BKLR @ given["dt_weight"].transpose(1, 2)
        delta_BKLE = F.softplus(delta_BKLE.float() + given["dt_bias"][:, None].float())
        per_scan = (t.transpose(2, 3) for t in (given["x"][:, order], delta_BKLE, B_BKLN, C_BKLN, z_BLE[:, order]))
        u, delta, B, C, z = per_scan
        return ScanInputs(u, delta, given["A"], B, C, given["D"], z, order)

    def _order(self, x_BLC: Tensor) -> Tensor:
        return self.scan((x_BLC.shape[1],), x_BLC.device).indices

    def _shared(self, x_BLE: Tensor, order: Tensor) -> dict:
        """Arguments of the scan where the directions differ in their rates alone: rows a token."""
        weight = self.conv1d.weight.squeeze(1)
        u_BLE = causal_conv1d(x_BLE.transpose(1, 2), weight, self.conv1d.bias, activation="silu").transpose(1, 2)
        p_BLKP = self.x_proj(u_BLE).unsqueeze(2).expand(-1, -1, 2, -1)
        dt_BLKR, B_BLKN, C_BLKN = p_BLKP.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return dict(
            x=u_BLE,
            order=order,
            dt=dt_BLKR,
            dt_weight=self.dt_proj.weight.expand(2, -1, -1),
            A=torch.stack([branch_rates(self), branch_rates(self, "_b")]),
            B=B_BLKN,
            C=C_BLKN,
            D=self.D.expand(2, -1),
            dt_bias=self.dt_proj.bias.expand(2, -1),
            rows="tokens",
        )
