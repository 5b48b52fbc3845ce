"""Instance norm with the sum and activation behind it by one kernel where there is one, and a convolution after it."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from mamba_vision.kernels import instance_norm
from mamba_vision.models.layers.recompute import recomputed


def norm_act(norm: nn.Module, x: Tensor, slope: float | None = None, residual: Tensor | None = None) -> Tensor:
    """act(norm(x) + residual) of a convolution's result x, which may be overwritten where no gradient is wanted.

    Args:
        norm: any norm of (B, C, *S); an nn.InstanceNorm runs with the rest in one kernel.
        slope: of LeakyReLU below 0; None for no activation.
    """
    fused = isinstance(norm, _InstanceNorm) and not norm.track_running_stats
    if fused and (residual is None or residual.dtype == x.dtype):
        return instance_norm(x, norm.weight, norm.bias, residual, norm.eps, slope, overwrite=True)
    y = norm(x) if residual is None else norm(x) + residual
    return y if slope is None else F.leaky_relu(y, slope, inplace=True)


def norm_act_conv(norm: nn.Module, x: Tensor, slope: float, conv: Callable[[Tensor], Tensor]) -> Tensor:
    """conv(act(norm(x))); what the convolution reads is computed again in backward, not kept, on a GPU."""
    return recomputed(lambda kept: conv(norm_act(norm, kept, slope)), x)
