"""The scan along orders by definition: take the tokens, convolve, project, scan, put back and add up."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mamba_vision.kernels.ordered_scan.orders import place, place_rows, take, take_rows


def ordered_scan_reference(
    x: torch.Tensor,
    order: torch.Tensor,
    dt: torch.Tensor,
    dt_weight: torch.Tensor | None,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    dt_bias: torch.Tensor | None,
    z: torch.Tensor | None,
    conv_weight: torch.Tensor | None,
    conv_bias: torch.Tensor | None,
    merge_sum: bool,
    token_rows: bool,
    delta_softplus: bool,
    scan: Callable[..., torch.Tensor],
    conv: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Shapes and meaning as in kernels/README.md; `scan` is a selective scan, `conv` a causal convolution."""
    tokens, channels = x.shape[1:]
    K = order.shape[-2]
    u = channels_first(take(x, order))
    if conv_weight is not None:
        bias = None if conv_bias is None else conv_bias.flatten()
        u = conv(u, conv_weight.flatten(0, 1), bias, activation="silu")
    if token_rows:
        dt, B, C = (take_rows(M, order) for M in (dt, B, C))  # (batch, L, K, size)
    else:
        dt, B, C = (M.transpose(1, 2) for M in (dt, B, C))
    if dt_weight is not None:
        dt = torch.einsum("blkr,kcr->blkc", dt.to(A.dtype), dt_weight.to(A.dtype))
    D, dt_bias = (None if p is None else p.flatten() for p in (D, dt_bias))
    y = scan(
        u,
        channels_first(dt),
        A.flatten(0, 1),
        B.permute(0, 2, 3, 1),
        C.permute(0, 2, 3, 1),
        D,
        delta_bias=dt_bias,
        delta_softplus=delta_softplus,
        out_dtype=A.dtype,
    )
    y = y.transpose(1, 2).unflatten(2, (K, channels))  # (batch, L, K, channels)
    y = place(y, order, tokens) if merge_sum else place_rows(y, order, tokens).transpose(1, 2)
    if z is not None:
        gate = F.silu(z.to(A.dtype))
        y = y * (gate if merge_sum else gate.unsqueeze(1))
    return y.to(x.dtype)


def channels_first(steps: torch.Tensor) -> torch.Tensor:
    """(batch, L, K, channels) as (batch, K channels, L), the form of the selective scan: a view if it is contiguous."""
    return steps.flatten(2).transpose(1, 2)
