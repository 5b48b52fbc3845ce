"""LocalVim's layer (Huang et al., arXiv 2403.09338, figure 3): as many directions as are asked for, each with its own
branch of parameters, attended to by channel, and added.

Legend: B batch, T tokens, L steps of an order, C model width, E inner width, K directions.
"""

import torch
from torch import Tensor, nn

from mamba_vision.kernels import ordered_scan
from mamba_vision.models.mixers.bi_attention import BiAttention
from mamba_vision.models.mixers.branch import add_branch, step_rank
from mamba_vision.models.mixers.direction_merge import DirectionMerge
from mamba_vision.models.mixers.directions import directional_inputs, directional_scan
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS, SCAN_ORDERS
from mamba_vision.scan_orders import Orders, return_as_published


@MIXERS.register_module()
class MultiMamba(nn.Module):
    """Selective state space layer over K orders of its tokens; parameter names are LocalVim's, `conv1d_0`, `A_log_0` …

    Args:
        d_model: width C of the tokens.
        d_state: states N a channel.
        d_conv: width of the causal convolutions.
        expand: E = int(expand * d_model).
        dt_rank: rank of the step sizes; 'auto' is ceil(d_model / 16).
        scan: config of the scan order; there is a set of parameters for each of its directions.
        search: weigh the directions, to find which ones count (`DirectionMerge`).
        conv_bias: whether the convolutions have a bias.
        bias: whether the input and output projections have one.

    In a float16 autocast region the layer computes in float32, see `precision`; its output is then float32.

    Shape:
        (B, T, C) to (B, T, C).
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        scan: dict | None = None,
        search: bool = False,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.scan = SCAN_ORDERS.build(scan or {"type": "local"})
        self.d_state, self.d_inner, self.dt_rank = d_state, int(expand * d_model), step_rank(dt_rank, d_model)
        self.suffixes = tuple(f"_{k}" for k in range(self.scan.n_directions))
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        for suffix in self.suffixes:
            add_branch(self, suffix, self.d_inner, d_state, self.dt_rank, d_conv, conv_bias)
        self.attn = BiAttention(self.d_inner)
        self.multi_scan = DirectionMerge(len(self.suffixes), search)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def extra_repr(self) -> str:
        return f"directions={' '.join(self.scan.labels)!r}, d_state={self.d_state}, dt_rank={self.dt_rank}"

    def forward(self, x_BTC: Tensor, orders: Orders | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C).

        Args:
            orders: the orders of `scan` over the grid that the tokens come from; None: over a line of T, which only
                orders of a line can.
        """
        if in_float16_region(x_BTC):
            with torch.autocast(x_BTC.device.type, enabled=False):
                return self.forward(x_BTC.to(self.in_proj.weight.dtype), orders)
        orders = self._line(x_BTC) if orders is None else orders
        x_BTE, z_BTE = self.in_proj(x_BTC).chunk(2, dim=-1)
        given = directional_scan(self, self.suffixes, x_BTE, orders.indices)
        y_BKTE = return_as_published(ordered_scan(**given, z=z_BTE, merge="none"), orders)
        return self.out_proj(self.multi_scan(self.attn(y_BKTE)))

    def scan_inputs(self, x_BTC: Tensor, orders: Orders | None = None) -> ScanInputs:
        """What `forward` would scan with, every sequence in the order in which its direction reads it."""
        orders = self._line(x_BTC) if orders is None else orders
        x_BTE, z_BTE = self.in_proj(x_BTC).chunk(2, dim=-1)
        return directional_inputs(self, self.suffixes, x_BTE, z_BTE, orders.indices)

    def _line(self, x_BTC: Tensor) -> Orders:
        return self.scan((x_BTC.shape[1],), x_BTC.device)
