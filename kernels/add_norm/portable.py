"""Sum and norm in plain PyTorch, forward and backward by hand."""

import torch

from mamba_vision.kernels.add_norm.reference import add_norm_reference


def forward(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype):
    """The normed sum and the sum, both (..., channels)."""
    return add_norm_reference(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype)


def backward(grad_normed, grad_total, total, weight, eps, centred, hidden_dtype, residual_dtype):
    """Gradients of hidden, residual (None if its dtype is None), weight and bias (these in float32 or float64)."""
    work = torch.promote_types(total.dtype, torch.float32)
    x, g = total.to(work), grad_normed.to(work)
    if centred:
        x = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    unit = x * scale
    weighted = g if weight is None else g * weight.to(work)
    dx = weighted - unit * (unit * weighted).mean(-1, keepdim=True)
    if centred:
        dx = dx - weighted.mean(-1, keepdim=True)
    dx = dx * scale
    if grad_total is not None:
        dx = dx + grad_total.to(work)
    g, unit = (t.reshape(-1, t.shape[-1]) for t in (g, unit))
    dresidual = None if residual_dtype is None else torch.empty_like(dx, dtype=residual_dtype).copy_(dx)
    return dx.to(hidden_dtype), dresidual, (g * unit).sum(0), g.sum(0)
