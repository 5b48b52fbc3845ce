"""The causal depthwise convolution by definition: one tap after the other at every step, differentiated by autograd."""

import torch
import torch.nn.functional as F


def causal_conv1d_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_states: torch.Tensor | None,
    seq_idx: torch.Tensor | None,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """out_t = bias + sum_k weight_k x_{t - (width - 1) + k}; x before time 0 is initial_states or zero.

    Shapes as in kernels/README.md. Returns the output, of x's dtype, and the last width - 1 inputs.
    """
    length, width = x.shape[2], weight.shape[1]
    if initial_states is None:
        initial_states = x.new_zeros(*x.shape[:2], width - 1)
    padded = torch.cat([initial_states, x], dim=-1)  # padded[t + width - 1] is x[t]
    outs = []
    for t in range(length):
        total = torch.zeros_like(padded[..., 0], dtype=weight.dtype)
        for k in range(width):
            tap = padded[..., t + k].to(weight.dtype) * weight[:, k]
            if seq_idx is not None:
                source = t + k - (width - 1)
                same = seq_idx[:, source] == seq_idx[:, t] if source >= 0 else torch.zeros_like(seq_idx[:, t]).bool()
                tap = torch.where(same[:, None], tap, 0)
            total = total + tap
        outs.append(total if bias is None else total + bias)
    out = torch.stack(outs, dim=-1)
    if silu:
        out = F.silu(out)
    return out.to(x.dtype), padded[..., length:].clone()
