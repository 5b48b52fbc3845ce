"""The extension modules selective_scan_cuda, _core and _oflex: their fwd and bwd, argument order for argument order.

Published autograd functions call these pairs themselves. `x`, which they carry from fwd to bwd, holds for every 2048
steps the product of the decays so far and the state, in turn along its last axis; readers take the last state from it
as x[:, :, -1, 1::2]. It is not needed here for bwd, which rebuilds what it wants.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mamba_vision.kernels.selective_scan import selective_scan

CHUNK = 2048  # steps between two entries of x


def mamba_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    cu_seqlens: None = None,
) -> list[Tensor]:
    """selective_scan_cuda.fwd: [out before the gate, x], and the gated output if z is given."""
    _refuse_packed(cu_seqlens)
    out, x = _forward(u, delta, A, B, C, D, delta_bias, delta_softplus)
    if z is None:
        return [out.to(u.dtype), x]
    return [out.to(u.dtype), x, (out * F.silu(z.to(out.dtype))).to(u.dtype)]


def mamba_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    dz: Tensor | None,
    delta_softplus: bool,
    recompute_out_z: bool,
    cu_seqlens: None = None,
) -> list[Tensor | None]:
    """selective_scan_cuda.bwd: gradients of u, delta, A, B, C, D, delta_bias; with z also of z (written into dz, if
    given) and, if asked for, the gated output again.
    """
    _refuse_packed(cu_seqlens)
    gradients, gated = _gradients(u, delta, A, B, C, D, z, delta_bias, dout, delta_softplus)
    *gradients, of_z = gradients
    if z is None:
        return gradients
    if dz is not None:
        of_z = dz.copy_(of_z)
    return [*gradients, of_z, gated.to(u.dtype)] if recompute_out_z else [*gradients, of_z]


def core_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    nrows: int = 1,
) -> list[Tensor]:
    """selective_scan_cuda_core.fwd: [out, x]; nrows, the rows a thread block works on, has no meaning here."""
    out, x = _forward(u, delta, A, B, C, D, delta_bias, delta_softplus)
    return [out.to(u.dtype), x]


def core_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    x: Tensor | None,
    delta_softplus: bool,
    nrows: int = 1,
) -> list[Tensor | None]:
    """selective_scan_cuda_core.bwd, and that of _oflex: gradients of u, delta, A, B, C, D, delta_bias."""
    return _gradients(u, delta, A, B, C, D, None, delta_bias, dout, delta_softplus)[0][:-1]


def oflex_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    nrows: int = 1,
    out_float: bool = True,
) -> list[Tensor]:
    """selective_scan_cuda_oflex.fwd: [out, x], out in float32 if out_float, else in u's dtype.

    delta and delta_bias may have fewer rows than u, each of which then serves as many consecutive channels.
    """
    out, x = _forward(u, delta, A, B, C, D, delta_bias, delta_softplus)
    return [out if out_float else out.to(u.dtype), x]


oflex_bwd = core_bwd


def _forward(u, delta, A, B, C, D, delta_bias, delta_softplus) -> tuple[Tensor, Tensor]:
    """The ungated output in at least float32, and x (batch, channels, entries, 2 state)."""
    delta, delta_bias = _row_a_channel(u, delta, delta_bias)
    outs, entries, state, total = [], [], None, 0
    length = u.shape[2]
    with torch.no_grad():
        for first in range(0, length, CHUNK):
            part = slice(first, min(first + CHUNK, length))
            out, state = selective_scan(
                u[..., part],
                delta[..., part],
                A,
                _part(B, part, length),
                _part(C, part, length),
                D,
                delta_bias=delta_bias,
                delta_softplus=delta_softplus,
                return_last_state=True,
                initial_state=state,
                out_dtype=torch.promote_types(u.dtype, torch.float32),
            )
            step = delta[..., part].to(out.dtype)
            step = step if delta_bias is None else step + delta_bias.to(out.dtype)[:, None]
            total = total + (F.softplus(step) if delta_softplus else step).sum(-1)
            outs.append(out)
            entries.append(torch.stack([torch.exp(total[..., None] * A).to(state.dtype), state], dim=-1).flatten(-2))
    return torch.cat(outs, dim=2) if len(outs) > 1 else outs[0], torch.stack(entries, dim=2)


def _part(M: Tensor, part: slice, length: int) -> Tensor:
    """The steps `part` of B or C, which may be constant or hold pairs of real and imaginary parts."""
    if M.dim() == 2:
        return M
    pairs = M.shape[-1] // length
    return M[..., part.start * pairs : part.stop * pairs]


def _gradients(u, delta, A, B, C, D, z, delta_bias, dout, delta_softplus) -> tuple[list[Tensor | None], Tensor]:
    """Gradients of u, delta, A, B, C, D, delta_bias and z, None for those not given; and the (gated) output."""
    inputs = [u, delta, A, B, C, D, delta_bias, z]
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
        u_, delta_, A_, B_, C_, D_, bias_, z_ = leaves
        wide_delta, wide_bias = _row_a_channel(u_, delta_, bias_)
        out_dtype = torch.promote_types(u.dtype, torch.float32)
        out = selective_scan(u_, wide_delta, A_, B_, C_, D_, z_, wide_bias, delta_softplus, out_dtype=out_dtype)
        found = iter(torch.autograd.grad(out, [t for t in leaves if t is not None], dout.to(out_dtype)))
    return [None if t is None else next(found) for t in leaves], out.detach()


def _row_a_channel(u: Tensor, delta: Tensor, delta_bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    rows, channels = delta.shape[1], u.shape[1]
    if rows == channels:
        return delta, delta_bias
    if channels % rows:
        raise ValueError(
            f"delta has shape {tuple(delta.shape)}: its rows do not divide the channels of {tuple(u.shape)}"
        )
    bias = None if delta_bias is None else delta_bias.repeat_interleave(channels // rows)
    return delta.repeat_interleave(channels // rows, dim=1), bias


def _refuse_packed(cu_seqlens) -> None:
    if cu_seqlens is not None:
        raise ValueError("cu_seqlens, sequences packed into one row, is not supported: found a tensor, expected None")
