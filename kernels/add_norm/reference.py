"""Sum and norm by definition, any float dtype, differentiated by autograd."""

import torch


def add_norm_reference(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    centred: bool,
    residual_dtype: torch.dtype,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm(residual + hidden), residual + hidden); computes in float32, in float64 where an input is float64."""
    work = torch.promote_types(residual_dtype, torch.float32)
    total = hidden.to(work) if residual is None else residual.to(work) + hidden.to(work)
    total = total.to(residual_dtype)
    x = total.to(work)
    if centred:
        x = x - x.mean(-1, keepdim=True)
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight.to(work)
    if bias is not None:
        y = y + bias.to(work)
    return y.to(out_dtype), total
