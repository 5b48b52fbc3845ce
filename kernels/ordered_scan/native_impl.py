"""The scan along orders with the scan itself in C++ (kernels/native), for tensors on a CPU."""

from functools import partial

import torch
import torch.nn.functional as F

from mamba_vision.kernels.native.library import TILE, run_ordered
from mamba_vision.kernels.ordered_scan import portable
from mamba_vision.kernels.selective_scan import native_impl as scan

backward = partial(portable.backward, scan=scan)


def forward(
    x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias,
    merge_sum, token_rows, delta_softplus, keep,
):  # fmt: skip
    """Merged outputs and what is kept for backward; arguments as in kernels/README.md.

    Without backward, where no token is missing from an order, one kernel reads and adds the tokens where they lie.
    """
    direct = merge_sum and token_rows and delta_softplus and not keep and conv_weight is None and dt_weight is not None
    tokens = x.shape[1]
    if direct and x.dtype == A.dtype == torch.float32 and order.shape[-1] == tokens:
        low, high = order.aminmax()
        if low >= 0 and high < tokens:
            return _direct(x, order, dt, dt_weight, A, B, C, D, dt_bias, z), A.new_empty(0)
    return portable.forward(
        x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias,
        merge_sum, token_rows, delta_softplus, keep, scan=scan,
    )  # fmt: skip


def _direct(x, order, dt, dt_weight, A, B, C, D, dt_bias, z):
    given = dict(dt=dt, dt_weight=dt_weight, A=A, B=B, C=C, x=x)
    given |= {name: A.new_zeros(A.shape[:2]) if p is None else p for name, p in (("D", D), ("dt_bias", dt_bias))}
    given = {name: t.to(A.dtype).contiguous() for name, t in given.items()}
    order = order.long() if order.dim() == 3 else order.long().unsqueeze(0)
    out = torch.empty_like(given["x"])
    run_ordered(**given, order=order.contiguous(), out=out)
    if z is not None:
        out *= F.silu(z)
    return out if out.stride() == x.stride() else torch.empty_like(x).copy_(out)


def saved_shape(x: torch.Tensor, order: torch.Tensor, A: torch.Tensor) -> tuple[int, ...]:
    """As that of the native selective scan with K x channels channels."""
    return (-(-order.shape[-1] // TILE), x.shape[0], A.shape[2], A.shape[0] * A.shape[1])
