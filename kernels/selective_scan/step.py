"""One step of the selective scan, for decoding token by token."""

import torch
import torch.nn.functional as F

from mamba_vision.kernels.checks import check_float, check_shape, compute_dtype


def selective_state_update(
    state: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
) -> torch.Tensor:
    """One step: state <- exp(s A) state + s x B in place, s = softplus(dt + dt_bias); y = (C state + D x) silu(z).

    Arithmetic is float32 (float64 for a float64 state); the state keeps its dtype.

    Args:
        state: (batch, channels, state) or, with heads, (batch, heads, channels, state). Changed in place.
        x, dt, z: (batch, channels) or (batch, heads, channels).
        A: (channels, state) or (heads, channels, state).
        B, C: (batch, state) or (batch, groups, state); head h belongs to group h // (heads / groups).
        D, dt_bias: (channels,) or (heads, channels).
        dt_softplus: pass dt + dt_bias through softplus.

    Returns:
        y, shaped like x and of its dtype.

    Raises:
        ValueError: for shapes or dtypes that do not go together.
    """
    if state.dim() not in (3, 4):
        raise ValueError(f"state has shape {tuple(state.shape)}, expected (batch, [heads,] channels, state)")
    check_float(state=state, x=x, dt=dt, A=A, B=B, C=C, D=D, z=z, dt_bias=dt_bias)
    for name, tensor in (("x", x), ("dt", dt), ("z", z)):
        if tensor is not None:
            check_shape(name, tensor, state.shape[:-1], "the shape of state without its last axis")
    check_shape("A", A, state.shape[1:], "the shape of state without the batch")
    for name, tensor in (("D", D), ("dt_bias", dt_bias)):
        if tensor is not None:
            check_shape(name, tensor, state.shape[1:-1], "the shape of state without batch and state size")
    heads = state.shape[1] if state.dim() == 4 else 1
    work = compute_dtype(state)
    B, C = (_per_head(name, M, state, heads).to(work) for name, M in (("B", B), ("C", C)))

    step = dt.to(work)
    if dt_bias is not None:
        step = step + dt_bias.to(work)
    if dt_softplus:
        step = F.softplus(step, threshold=20.0)
    xw = x.to(work)
    new = torch.exp(step.unsqueeze(-1) * A.to(work)) * state.to(work) + (step * xw).unsqueeze(-1) * B
    state.copy_(new)
    y = (new * C).sum(-1)
    if D is not None:
        y = y + D.to(work) * xw
    if z is not None:
        y = y * F.silu(z.to(work))
    return y.to(x.dtype)


def _per_head(name: str, M: torch.Tensor, state: torch.Tensor, heads: int) -> torch.Tensor:
    """B or C, broadcastable to state."""
    batch, size = state.shape[0], state.shape[-1]
    given = tuple(M.shape)
    M = M.unsqueeze(1) if M.dim() == 2 else M
    groups = M.shape[1]
    if tuple(M.shape) != (batch, groups, size) or groups < 1 or heads % groups:
        raise ValueError(
            f"{name} has shape {given}, expected (batch, [groups,] state) with groups dividing {heads} heads: "
            f"state has shape {tuple(state.shape)}"
        )
    if state.dim() == 3:
        return M
    return M.repeat_interleave(heads // groups, dim=1).unsqueeze(2)
