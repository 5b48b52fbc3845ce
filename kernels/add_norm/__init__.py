"""Residual sum and norm in one pass."""

from mamba_vision.kernels.add_norm.op import add_norm, norm_tokens

__all__ = ["add_norm", "norm_tokens"]
