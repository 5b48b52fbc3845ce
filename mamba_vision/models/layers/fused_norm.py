"""Norms over channels-last tokens by one kernel, with the residual sum before them where there is one.

PyTorch's autocast computes norms in float32 and hands out float32, which the Linear behind then rounds to half
precision in a pass of its own. Where that Linear is the only reader, the norm here writes what it would round to.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import add_norm, backend_for, norm_tokens


def norm_tokens_by(norm: nn.Module, x: Tensor, for_linear: bool = False) -> Tensor:
    """norm(x) of an nn.LayerNorm or nn.RMSNorm over the last axis, by a kernel where there is one.

    Args:
        for_linear: only a Linear reads the result (or another operation that autocast rounds the inputs of).
    """
    if not _kernel_runs(norm, x):
        return norm(x)
    return norm_tokens(x, *_parameters(norm), norm=_kind(norm), out_dtype=_out_dtype(norm, x, for_linear))


def add_and_norm(
    norm: nn.Module,
    hidden: Tensor,
    residual: Tensor | None,
    residual_dtype: torch.dtype | None = None,
    for_linear: bool = False,
) -> tuple[Tensor, Tensor]:
    """norm(residual + hidden) and the sum.

    Args:
        residual: None: hidden is the sum.
        residual_dtype: dtype of the sum; None: what the two promote to.
        for_linear: as for `norm_tokens_by`.
    """
    if not _kernel_runs(norm, hidden):
        total = hidden if residual is None else residual + hidden
        total = total if residual_dtype is None else total.to(residual_dtype)
        return norm(total if norm.weight is None else total.to(norm.weight.dtype)), total
    wide = hidden if residual is None else residual
    return add_norm(
        hidden, residual, *_parameters(norm), norm=_kind(norm), residual_dtype=residual_dtype,
        out_dtype=_out_dtype(norm, wide, for_linear),
    )  # fmt: skip


class TokenNorm(nn.LayerNorm):
    """nn.LayerNorm over the last axis, by a kernel where there is one."""

    def forward(self, x: Tensor) -> Tensor:
        if not _kernel_runs(self, x):
            return _widened(self, x) if _is_narrow(self, x) else super().forward(x)
        return norm_tokens(x, *_parameters(self), norm="layer", out_dtype=_out_dtype(self, x, False))


def wide_layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """norm(x), also where x is float32 in a model of float16: sums that may pass float16's range before the norm."""
    return _widened(norm, x) if _is_narrow(norm, x) else norm(x)


def _is_narrow(norm: nn.LayerNorm, x: Tensor) -> bool:
    return x.dtype == torch.float32 and norm.weight is not None and norm.weight.dtype == torch.float16


def _widened(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    bias = None if norm.bias is None else norm.bias.float()
    return F.layer_norm(x, norm.normalized_shape, norm.weight.float(), bias, norm.eps)


def _kernel_runs(norm: nn.Module, x: Tensor) -> bool:
    if not x.is_cuda or torch.compiler.is_compiling() or not isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        return False  # a compiler fuses norms by itself
    if norm.weight is not None and norm.weight.dtype != torch.float32:
        return False
    return len(norm.normalized_shape) == 1 and backend_for(x, "add_norm").name == "triton"


def _parameters(norm: nn.Module) -> tuple[Tensor | None, Tensor | None, float]:
    eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
    return norm.weight, getattr(norm, "bias", None), eps


def _kind(norm: nn.Module) -> str:
    return "layer" if isinstance(norm, nn.LayerNorm) else "rms"


def _out_dtype(norm: nn.Module, x: Tensor, for_linear: bool) -> torch.dtype:
    if not torch.is_autocast_enabled("cuda"):
        return x.dtype if norm.weight is None else norm.weight.dtype
    half = torch.get_autocast_dtype("cuda")
    # float16 ends too early for what a mixer may compute outside of autocast, see mixers/precision.py
    return half if for_linear and half == torch.bfloat16 else torch.promote_types(x.dtype, torch.float32)
