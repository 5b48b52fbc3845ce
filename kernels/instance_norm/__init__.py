"""Instance norm, residual sum and leaky activation in one."""

from mamba_vision.kernels.instance_norm.op import instance_norm

__all__ = ["instance_norm"]
