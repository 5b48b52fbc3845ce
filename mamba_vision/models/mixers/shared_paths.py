"""RSMamba's layer (Chen et al., arXiv 2403.19654, figure 2): one Mamba's weights along several orders, fused by a gate.

Legend: B batch, L tokens, C model width, E inner width, K orders, R step rank, N states, P = R + 2N.

The published code runs the whole layer on K reordered copies. Here projections run once a token, only what comes behind
the convolution runs once an order, and as the output projection is linear it is applied to the fused result.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import ordered_conv1d, ordered_scan
from mamba_vision.models.mixers.branch import add_branch, branch_rates, step_rank
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS


@MIXERS.register_module()
class SharedPathsMamba(nn.Module):
    """Selective state space layer whose parameters are shared by all orders that it reads its tokens in.

    All parameters but rates and skip start as PyTorch starts them: the published model never gives its step sizes the
    start that Mamba has.

    Args:
        d_model: width C of the tokens.
        d_inner: inner width E.
        d_state: states N a channel.
        d_conv: width of the causal convolution.
        dt_rank: rank R of the step sizes; 'auto' is ceil(d_model / 16).

    Shape:
        (B, L, C) to (B, L, C).
    """

    def __init__(
        self, d_model: int, d_inner: int, d_state: int = 16, d_conv: int = 4, dt_rank: int | str = "auto"
    ) -> None:
        super().__init__()
        self.d_state, self.dt_rank = d_state, step_rank(dt_rank, d_model)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        add_branch(self, "", d_inner, d_state, self.dt_rank, d_conv)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x_BLC: Tensor, order: Tensor | None = None, gate: nn.Module | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            order: (K, L), the order of the tokens in each path; None: as they come.
            gate: from the token means of all paths' outputs, (B, K * C), to their weights (B, K); None: equal weights.
        """
        y_BKLE = self._gated(x_BLC, self._line(x_BLC) if order is None else order)
        if gate is None:
            return self.out_proj(y_BKLE.mean(1))
        weights_BK = gate(self.out_proj(y_BKLE.mean(2)).flatten(1))
        return self.out_proj(torch.einsum("bk,bkle->ble", weights_BK.to(y_BKLE.dtype), y_BKLE))

    def each_path(self, x_BLC: Tensor, order: Tensor | None = None) -> Tensor:
        """Every path's own output, (B, K, L, C), each token's result at the token's place."""
        return self.out_proj(self._gated(x_BLC, self._line(x_BLC) if order is None else order))

    def scan_inputs(self, x_BLC: Tensor, order: Tensor | None = None) -> ScanInputs:
        """What `forward` would scan with, every sequence in its order."""
        order = self._line(x_BLC) if order is None else order
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        given = self._arguments(x_BLE, order)
        delta_BKLE = F.softplus((given["dt"] @ given["dt_weight"].transpose(1, 2)).float() + self.dt_proj.bias.float())
        u_BKLE = ordered_conv1d(x_BLE, order, *given["conv"])
        per_scan = (t.transpose(2, 3) for t in (u_BKLE, delta_BKLE, given["B"], given["C"], z_BLE[:, order]))
        u, delta, B, C, z = per_scan
        return ScanInputs(u, delta, given["A"], B, C, given["D"], z, order)

    @staticmethod
    def _line(x_BLC: Tensor) -> Tensor:
        return torch.arange(x_BLC.shape[1], device=x_BLC.device)[None]

    def _gated(self, x_BLC: Tensor, order: Tensor) -> Tensor:
        """Every path's scan, gated, before the output projection, (B, K, L, E)."""
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        y_BKLE = ordered_scan(**self._arguments(x_BLE, order), merge="none")
        return y_BKLE * F.silu(z_BLE).unsqueeze(1)

    def _arguments(self, x_BLE: Tensor, order: Tensor) -> dict:
        paths = order.shape[0]
        bias = self.conv1d.bias
        conv = (self.conv1d.weight.squeeze(1).expand(paths, -1, -1), None if bias is None else bias.expand(paths, -1))
        p_BKLP = self.x_proj(ordered_conv1d(x_BLE, order, *conv))
        dt_BKLR, B_BKLN, C_BKLN = p_BKLP.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return dict(
            x=x_BLE,
            order=order,
            dt=dt_BKLR,
            dt_weight=self.dt_proj.weight.expand(paths, -1, -1),
            A=branch_rates(self).expand(paths, -1, -1),
            B=B_BKLN,
            C=C_BKLN,
            D=self.D.expand(paths, -1),
            dt_bias=self.dt_proj.bias.expand(paths, -1),
            conv=conv,
        )
