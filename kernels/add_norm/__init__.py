"""Residual sum and norm in one pass; the gated norm of Mamba-2."""

from mamba_vision.kernels.add_norm.gated import gated_norm
from mamba_vision.kernels.add_norm.op import add_norm, norm_tokens

__all__ = ["add_norm", "gated_norm", "norm_tokens"]
