"""SegMamba's tri-oriented Mamba (Xing et al., arXiv 2401.13560, figure 3): forward, backward and across slices.

Legend: B batch, L tokens, C model width, E inner width.
"""

import torch
from torch import Tensor, nn

from mamba_vision.kernels import ordered_scan
from mamba_vision.models.mixers.branch import add_branch, step_rank
from mamba_vision.models.mixers.directions import directional_inputs, directional_scan
from mamba_vision.models.mixers.precision import in_float16_region
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.registry import MIXERS, SCAN_ORDERS

SUFFIXES = ("", "_b", "_s")


@MIXERS.register_module()
class TriOrientedMamba(nn.Module):
    """Three gated scans of the same tokens, each with its own parameters, added up before one output projection.

    Args:
        d_model: Width C of the tokens.
        nslices: Runs in which the flattened volume is cut for the third order, which interleaves them; None: as many as
            the first axis is long, that is real slices. Published networks fix the number whatever the volume.
        d_state, d_conv, expand, dt_rank, conv_bias, bias: As `Mamba` has them.
        dt_min, dt_max, dt_init, dt_scale, dt_init_floor: How every direction's step sizes start.

    In a float16 autocast region the layer computes in float32, see `precision`.

    Raises:
        ValueError: `nslices`, `dt_rank` or `dt_init` is not possible.
    """

    def __init__(
        self,
        d_model: int,
        nslices: int | None = 5,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.scan = SCAN_ORDERS.build(dict(type="tri_oriented", slices=nslices))
        self.d_state, self.d_inner, self.dt_rank = d_state, int(expand * d_model), step_rank(dt_rank, d_model)
        steps = dict(dt_min=dt_min, dt_max=dt_max, dt_init=dt_init, dt_scale=dt_scale, dt_init_floor=dt_init_floor)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        for suffix in SUFFIXES:
            add_branch(self, suffix, self.d_inner, d_state, self.dt_rank, d_conv, conv_bias, steps)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def extra_repr(self) -> str:
        return f"{self.scan}, d_state={self.d_state}, dt_rank={self.dt_rank}"

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are published without weight decay."""
        return {name for suffix in SUFFIXES for name in (f"A{suffix}_log", f"D{suffix}")}

    def forward(self, x_BLC: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            grid: Shape of the volume whose row-major flattening the tokens are; None: a line of L.
        """
        if in_float16_region(x_BLC):
            with torch.autocast(x_BLC.device.type, enabled=False):
                return self.forward(x_BLC.to(self.in_proj.weight.dtype), grid)
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        # The gate is the same for the three results of a token, so it is applied to their sum.
        return self.out_proj(ordered_scan(z=z_BLE, **directional_scan(self, SUFFIXES, x_BLE, self._order(x_BLC, grid))))

    def scan_inputs(self, x_BLC: Tensor, grid: tuple[int, ...] | None = None) -> ScanInputs:
        """What `forward` would scan with, every sequence in the order in which its direction reads it."""
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        return directional_inputs(self, SUFFIXES, x_BLE, z_BLE, self._order(x_BLC, grid))

    def _order(self, x_BLC: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        return self.scan(grid or (x_BLC.shape[1],), x_BLC.device).indices
