"""Convolutions of side 1 over channels-last volumes in half precision on a GPU, where cuDNN's own choice is slow."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PARTS = 256  # of a sum over all voxels
LEAST = 4096  # voxels a part
LANES = 8  # channels that lie together: products of rows of other widths are several times slower


def pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution of side 1, as a product of matrices.

    The gradient of its weight is a few numbers that are sums over all voxels, which cuDNN leaves to one multiprocessor;
    here parts of the voxels are added up side by side. Elsewhere, and for compilers, it is the nn.Conv3d as it is.
    """
    dtype = _fast_dtype(x)
    if dtype is None:
        return conv(x)
    x_BDHWC = x.movedim(1, -1).to(dtype)
    bias = None if conv.bias is None else conv.bias.to(dtype)
    rows = _Pointwise.apply(x_BDHWC.flatten(0, -2), conv.weight.flatten(1).to(dtype), bias)
    return rows.unflatten(0, x_BDHWC.shape[:-1]).movedim(-1, 1)


def _fast_dtype(x: Tensor) -> torch.dtype | None:
    """The half precision to compute in; None where nn.Conv3d shall run."""
    if not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    return dtype if half and x.is_contiguous(memory_format=torch.channels_last_3d) else None


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.cout, ctx.cin = weight.shape
        rows, weight = _widened(rows), _widened(_widened(weight).t()).t()
        ctx.save_for_backward(rows, weight)
        ctx.biased = bias is not None
        return _narrowed(F.linear(rows, weight, None if bias is None else _widened(bias)), ctx.cout)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = _widened(grad.contiguous())
        wanted = ctx.needs_input_grad
        drows = _narrowed(grad @ weight, ctx.cin) if wanted[0] else None
        dweight = sum_of_products(grad, rows)[: ctx.cout, : ctx.cin].to(weight.dtype) if wanted[1] else None
        return drows, dweight, grad.sum(0)[: ctx.cout] if ctx.biased and wanted[2] else None


def _widened(x: Tensor) -> Tensor:
    """Zeros behind the last axis, up to a multiple of LANES."""
    more = -x.shape[-1] % LANES
    return F.pad(x, (0, more)) if more else x


def _narrowed(rows: Tensor, channels: int) -> Tensor:
    return rows if rows.shape[1] == channels else rows[:, :channels].contiguous()


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b of (rows, n) and (rows, m), in float32."""
    parts = max(1, min(PARTS, len(a) // LEAST))
    whole = len(a) // parts * parts
    total = torch.bmm(a[:whole].unflatten(0, (parts, -1)).transpose(1, 2), b[:whole].unflatten(0, (parts, -1)))
    total = total.sum(0, dtype=torch.float32)
    return total if whole == len(a) else total + (a[whole:].t() @ b[whole:]).float()
