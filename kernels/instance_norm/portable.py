"""Instance norm in PyTorch's own operations, differentiated by autograd; what compilers and exporters see."""

import torch
import torch.nn.functional as F


def instance_norm_portable(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    slope: float | None,
) -> torch.Tensor:
    """act(norm(x) * weight + bias + residual)."""
    if bias is not None and weight is None:  # PyTorch on a GPU drops a bias alone
        weight = torch.ones_like(bias)
    y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    if y.requires_grad and not torch.compiler.is_compiling():
        # PyTorch 2.15 on a CPU differentiates a batch of one wrongly where the gradient comes channels-last
        y.register_hook(torch.Tensor.contiguous)
    if residual is not None:
        y = y + residual
    if slope is None:
        return y
    return F.relu(y, inplace=True) if slope == 0 else F.leaky_relu(y, slope, inplace=True)
