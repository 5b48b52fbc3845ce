"""Functions of mamba_ssm and causal_conv1d with their published names and argument orders, on this package's ops.

`compat.install` hands them out under the published module names; see there for which name goes where.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels.backends import use_backend
from mamba_vision.kernels.causal_conv1d import causal_conv1d
from mamba_vision.kernels.selective_scan import selective_scan

__all__ = [
    "RMSNorm",
    "bimamba_inner_fn",
    "causal_conv1d_fn",
    "layer_norm_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "rms_norm_fn",
    "selective_scan_fn",
    "selective_scan_ref",
]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`selective_scan`; unlike the published function, the last state is differentiable."""
    return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`selective_scan` on the reference backend."""
    with use_backend("reference"):
        return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | str | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`causal_conv1d`; a string in fourth place is the activation, which stood there before version 1.2."""
    if isinstance(seq_idx, str):
        seq_idx, activation = None, seq_idx
    if final_states_out is None:
        return causal_conv1d(x, weight, bias, activation, initial_states, return_final_states, seq_idx)
    out, states = causal_conv1d(x, weight, bias, activation, initial_states, True, seq_idx)
    final_states_out.copy_(states)
    return (out, final_states_out) if return_final_states else out


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """All of a Mamba layer behind its input projection (arXiv 2312.00752, figure 3).

    Args:
        xz: (batch, 2 channels, length), the two halves of the projected input.
        conv1d_weight, conv1d_bias: (channels, 1, width) and (channels,).
        x_proj_weight: (rank + 2 state, channels).
        delta_proj_weight: (channels, rank).
        out_proj_weight, out_proj_bias: (d_model, channels) and (d_model,).
        A, D, delta_bias: as in `selective_scan`.
        B, C: constant (channels, state), or None to project them from the input.
        B_proj_bias, C_proj_bias: (state,), added to projected B and C.
        checkpoint_lvl: accepted; how much is kept for backward is the ops' own business.
        b_rms_weight, c_rms_weight, dt_rms_weight: (state,), (state,) and (rank,), of root-mean-square norms of the
            projected B and C and of the step sizes before their projection; None: none.
        b_c_dt_rms_eps: of these norms.

    Returns:
        (batch, length, d_model).
    """
    norms = (b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps)
    u, delta, B, C, z = _scan_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias, *norms
    )
    y = selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor:
    """`mamba_inner_fn` up to the output projection: (batch, channels, length)."""
    u, delta, B, C, z = _scan_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias
    )
    return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """`mamba_inner_fn` with a second scan, by A_b, over the reversed sequence, added on (Vim, arXiv 2401.09417).

    The published CUDA function loses the second scan's gradient of the gate; this one has it.
    """
    u, delta, B, C, z = _scan_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias
    )
    y = selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    u, delta, z = (t.flip(-1) for t in (u, delta, z))
    B, C = (M.flip(-1) if M.dim() > 2 else M for M in (B, C))
    y = y + selective_scan(u, delta, A_b, B, C, D, z, delta_bias, delta_softplus).flip(-1)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def _scan_inputs(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias,
    b_rms_weight=None, c_rms_weight=None, dt_rms_weight=None, eps=1e-6,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """u, delta, B, C and z of the scan."""
    x, z = xz.chunk(2, dim=1)
    u = causal_conv1d(x, conv1d_weight.squeeze(1), conv1d_bias, "silu")
    rows = F.linear(u.transpose(1, 2), x_proj_weight)
    rank, state = delta_proj_weight.shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    delta = F.linear(_row_norm(rows[..., :rank], dt_rms_weight, eps), delta_proj_weight).transpose(1, 2)
    if B is None:
        B = _projected(rows[..., rank : rank + state], B_proj_bias, A, b_rms_weight, eps)
    if C is None:
        C = _projected(rows[..., -state:], C_proj_bias, A, c_rms_weight, eps)
    return u, delta, B, C, z


def _row_norm(rows: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return rows
    wide = torch.promote_types(rows.dtype, torch.float32)
    return F.rms_norm(rows.to(wide), weight.shape, weight.to(wide), eps).to(rows.dtype)


def _projected(rows: Tensor, bias: Tensor | None, A: Tensor, rms_weight: Tensor | None, eps: float) -> Tensor:
    """(batch, length, state) as (batch, state, length); with complex A from pairs of real and imaginary part."""
    if bias is not None:
        rows = rows + bias.to(rows.dtype)
    rows = _row_norm(rows, rms_weight, eps)
    if A.is_complex():
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        rows = torch.view_as_complex(wide.unflatten(-1, (-1, 2)).contiguous())
    return rows.transpose(1, 2)


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    *,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Add the residual, then normalize over the last axis, in float32 inside.

    What follows `residual` is taken by name only: its order differs between published versions.

    Args:
        x: (..., channels).
        weight, bias: (channels,); bias may be None.
        residual: like x, added to x first.
        x1: like x, added too (not with `rowscale`).
        weight1, bias1: of a second norm of the same sum, returned behind the first.
        dropout_p: rate of dropping values of x and of x1 before they are added.
        rowscale: (...), factors of the rows of x.
        prenorm: also return the sum, to be the next residual.
        residual_in_fp32: that sum is float32 where no residual was given; otherwise it has the residual's dtype.
        is_rms_norm: divide by the root mean square only.

    Raises:
        ValueError: `rowscale` together with `x1`.
    """
    if rowscale is not None and x1 is not None:
        raise ValueError("rowscale: found together with x1, expected one of them")
    wide = torch.promote_types(x.dtype, torch.float32)
    total = x.to(wide) if rowscale is None else x.to(wide) * rowscale.to(wide).unsqueeze(-1)
    total = F.dropout(total, dropout_p) if dropout_p else total
    if x1 is not None:
        total = total + (F.dropout(x1.to(wide), dropout_p) if dropout_p else x1.to(wide))
    if residual is not None:
        total = total + residual.to(wide)
        carried = total.to(residual.dtype)
    else:
        carried = total if residual_in_fp32 else total.to(x.dtype)

    def normed(weight: Tensor, bias: Tensor | None) -> Tensor:
        weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
        if not is_rms_norm:
            return F.layer_norm(total, weight.shape, weight, bias, eps).to(x.dtype)
        y = F.rms_norm(total, weight.shape, weight, eps)
        return (y if bias is None else y + bias).to(x.dtype)

    results = [normed(weight, bias)]
    if weight1 is not None:
        results.append(normed(weight1, bias1))
    if prenorm:
        results.append(carried)
    return results[0] if len(results) == 1 else tuple(results)


def rms_norm_fn(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None, **options
) -> Tensor | tuple[Tensor, ...]:
    """`layer_norm_fn` with the root mean square; the same options."""
    return layer_norm_fn(x, weight, bias, residual, is_rms_norm=True, **options)


class RMSNorm(nn.Module):
    """Normalization by the root mean square over the last axis, with a weight and no bias."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False, residual_in_fp32: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(..., hidden_size) like x; see `layer_norm_fn`."""
        return rms_norm_fn(
            x, self.weight, None, residual, eps=self.eps, prenorm=prenorm, residual_in_fp32=residual_in_fp32
        )
