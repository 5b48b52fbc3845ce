"""The selective scan by definition: one step after the other, any float dtype, differentiated by autograd."""

import torch
import torch.nn.functional as F


def selective_scan_reference(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    delta_softplus: bool,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mamba's recurrence (arXiv 2312.00752, equation 2 with the input matrix discretized by s B).

        s_t = softplus(delta_t + delta_bias);  h_t = exp(s_t A) h_{t-1} + s_t B_t u_t
        y_t = C_t h_t + D u_t;                 out_t = y_t silu(z_t)

    With complex A, half of each conjugate pair is stored, and C_t h_t stands for 2 Re(C_t h_t).

    Shapes: u, delta, z (batch, channels, length); A (channels, state); B, C (channels, state) or
    (batch, groups, state, length); D, delta_bias (channels,); initial_state (batch, channels, state).
    Returns out (batch, channels, length) of out_dtype and the last state (batch, channels, state) of A's dtype.
    """
    real = A.real.dtype if A.is_complex() else A.dtype
    batch, channels, length = u.shape
    x, step = u.to(real), delta.to(real)
    if delta_bias is not None:
        step = step + delta_bias[:, None]
    if delta_softplus:
        step = F.softplus(step, threshold=20.0)
    B, C = (_per_channel(M, channels, length, A.dtype) for M in (B, C))

    h = initial_state if initial_state is not None else A.new_zeros(batch, *A.shape)
    ys = []
    for t in range(length):
        s = step[:, :, t, None]
        h = torch.exp(s * A) * h + s * x[:, :, t, None] * B[..., t]
        y = (h * C[..., t]).sum(-1)
        ys.append(2 * y.real if A.is_complex() else y)
    y = torch.stack(ys, dim=-1)
    if D is not None:
        y = y + D[:, None] * x
    if z is not None:
        y = y * F.silu(z.to(real))
    return y.to(out_dtype), h


def _per_channel(M: torch.Tensor, channels: int, length: int, dtype: torch.dtype) -> torch.Tensor:
    """B or C as (batch or 1, channels, state, length)."""
    M = M.to(dtype)
    if M.dim() == 2:
        return M[None, :, :, None].expand(1, -1, -1, length)
    return M.repeat_interleave(channels // M.shape[1], dim=1)
