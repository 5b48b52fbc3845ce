"""VMamba's layer in Mamba-2's form (`m0`): scalar decay a head, the matrix form of Dao and Gu, arXiv 2405.21060.

Legend: B batch, H, W rows and columns, L = H * W tokens, D inner width, K directions, R heads a direction, P = D / R
channels a head, N states.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mamba_vision.kernels import ssd
from mamba_vision.models.mixers.branch import step_rank
from mamba_vision.models.mixers.ss2d import Mixer2d
from mamba_vision.registry import MIXERS, SCAN_ORDERS
from mamba_vision.scan_orders import fold, gather_tokens, grid_orders, return_tokens, unfold


@MIXERS.register_module()
class SSD2D(Mixer2d):
    """Mamba-2 scans along K orders of the map's pixels, added. B and C are shared by the heads of a direction.

    Args:
        d_model: width C of the tokens.
        d_state: states N a channel.
        dt_rank: heads R a direction; 'auto' is ceil(d_model / 16).
        ssm_init: 'v1' (normal) or 'v2' (zeros and uniform).
        scan: config of the scan order.
        chunk_size: of the matrix form.
        options: of `Mixer2d`.

    Raises:
        ValueError: the inner width is no multiple of the heads, or an unknown name.
    """

    published_renames = (("conv2d.1.*", "conv2d.*"),)

    def __init__(
        self, d_model: int, d_state: int = 64, dt_rank: int | str = "auto", ssm_init: str = "v2",
        scan: dict | None = None, chunk_size: int = 64, **options,
    ) -> None:  # fmt: skip
        super().__init__(d_model, **options)
        self.scan, self.chunk_size = SCAN_ORDERS.build(scan or {"type": "cross"}), chunk_size
        self.d_state, self.heads, directions = d_state, step_rank(dt_rank, d_model), self.scan.n_directions
        if self.d_inner % self.heads:
            raise ValueError(f"dt_rank: found {self.heads} heads, expected a divisor of the inner width {self.d_inner}")
        if ssm_init not in ("v1", "v2"):
            raise ValueError(f"ssm_init: found {ssm_init!r}, expected 'v1' or 'v2' for the Mamba-2 form")
        bound, shape = self.d_inner**-0.5, (directions, self.heads)
        rows = self.heads + 2 * d_state
        self.x_proj_weight = nn.Parameter(torch.empty(directions, rows, self.d_inner).uniform_(-bound, bound))
        normal = ssm_init == "v1"
        self.A_logs = nn.Parameter(torch.randn(shape) if normal else torch.zeros(shape))
        self.dt_projs_bias = nn.Parameter(0.1 * (torch.randn(shape) if normal else torch.rand(shape)))
        self.Ds = nn.Parameter(torch.ones(*shape, self.d_inner // self.heads))

    def mix(self, x_BHWD: Tensor) -> Tensor:
        orders = grid_orders(self.scan, tuple(x_BHWD.shape[1:3]), x_BHWD.device)
        orders = replace(orders, published_return=None)  # other systems' misplaced results are none of this one's
        x_BKLD = gather_tokens(fold(x_BHWD.flatten(1, 2), orders), orders)
        p_BKLP = x_BKLD @ self.x_proj_weight.transpose(1, 2)
        dt_BKLR, B_BKLN, C_BKLN = p_BKLP.split([self.heads, self.d_state, self.d_state], dim=-1)
        x_BLKD, dt_BLKR, B_BLKN, C_BLKN = (t.transpose(1, 2) for t in (x_BKLD, dt_BKLR, B_BKLN, C_BKLN))
        y = ssd(
            x_BLKD.unflatten(-1, (self.heads, -1)).flatten(2, 3),
            dt_BLKR.flatten(2),
            -self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)).exp().flatten(),
            B_BLKN,
            C_BLKN,
            D=self.Ds.flatten(0, 1),
            dt_bias=self.dt_projs_bias.flatten(),
            dt_softplus=True,
            chunk_size=self.chunk_size,
        )
        y_BKLD = y.unflatten(2, (-1, self.heads)).flatten(3).transpose(1, 2)
        return unfold(return_tokens(y_BKLD, orders).sum(1), orders).view(x_BHWD.shape)
