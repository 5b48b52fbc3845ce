"""The Mamba-2 recurrence by definition: one step after the other, any float dtype, differentiated by autograd."""

import torch


def ssd_reference(
    x: torch.Tensor,
    step: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    segment: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """S_t = exp(s_t A) S_{t-1} + s_t x_t B_t^T, y_t = S_t C_t (arXiv 2405.21060, section 3), per head.

    Args:
        x: (batch, length, heads, P).
        step: (batch, length, heads), s, after bias, softplus and limits.
        A: (heads,).
        B, C: (batch, length, groups, N); head h belongs to group h // (heads / groups).
        state: (batch, heads, P, N), before the first step.
        segment: (batch, length), which sequence a step belongs to, counted from 0, or None: the state is set to zero
            where it grows, and before the first step if that is not of segment 0.

    Returns:
        y, like x, and the last state.
    """
    per_group = x.shape[2] // B.shape[2]
    B, C = (M.repeat_interleave(per_group, dim=2) for M in (B, C))
    ys = []
    for t in range(x.shape[1]):
        if segment is not None:
            before = segment[:, t - 1] if t else torch.zeros_like(segment[:, 0])
            state = torch.where((segment[:, t] == before)[:, None, None, None], state, 0)
        s = step[:, t, :, None, None]
        state = torch.exp(s * A[:, None, None]) * state + s * x[:, t, :, :, None] * B[:, t, :, None, :]
        ys.append((state * C[:, t, :, None, :]).sum(-1))
    return torch.stack(ys, dim=1), state
