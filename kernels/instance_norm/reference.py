"""Instance norm by definition, any float dtype, differentiated by autograd."""

import torch


def instance_norm_reference(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    slope: float | None,
) -> torch.Tensor:
    """act(norm(x) * weight + bias + residual) of x's dtype; computes in float32, in float64 for float64."""
    work = torch.promote_types(x.dtype, torch.float32)
    axes = tuple(range(2, x.dim()))
    y = x.to(work)
    y = y - y.mean(axes, keepdim=True)
    y = y * torch.rsqrt(y.square().mean(axes, keepdim=True) + eps)
    per_channel = (-1, *(1 for _ in axes))
    if weight is not None:
        y = y * weight.to(work).view(per_channel)
    if bias is not None:
        y = y + bias.to(work).view(per_channel)
    if residual is not None:
        y = y + residual.to(work)
    if slope is not None:
        y = torch.where(y > 0, y, y * slope)
    return y.to(x.dtype)
