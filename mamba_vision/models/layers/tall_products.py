"""Products of matrices with very many rows in half precision on a GPU, where cuBLAS's own choice is slow.

The gradient of the weight is a few numbers that are sums over all rows, which are left to a few multiprocessors; here
parts of the rows are added up side by side. And rows that are no multiple of 16 bytes are read a number at a time: they
are widened with zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PARTS = 256  # of a sum over all rows
LEAST = 4096  # rows a part
LANES = 8  # numbers in 16 bytes


def half_dtype(x: Tensor) -> torch.dtype | None:
    """The half precision in which products with x are computed on a GPU; None elsewhere, and for compilers."""
    if not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def tall_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows weight^T + bias, as wide as `lanes` says; what is behind the weight's own width is zero.

    Args:
        rows: (..., M, E)
        weight: (..., P, E)
        bias: (P,), where there is but one weight.
    """
    if bias is not None:
        bias = F.pad(bias, (0, lanes(len(bias)) - len(bias)))
    E, P = rows.shape[-1], weight.shape[-2]
    weight = F.pad(weight, (0, lanes(E) - E, 0, lanes(P) - P))
    return _TallProduct.apply(F.pad(rows, (0, lanes(E) - E)) if lanes(E) > E else rows, weight, bias)


def lanes(size: int) -> int:
    """The next width whose rows are multiples of 16 bytes."""
    return -(-size // LANES) * LANES


class _TallProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.biased = bias is not None
        return F.linear(rows, weight, bias) if weight.dim() == 2 else torch.matmul(rows, weight.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        wanted = ctx.needs_input_grad
        dweight = sum_of_products(grad, rows).to(weight.dtype) if wanted[1] else None
        return grad @ weight if wanted[0] else None, dweight, grad.sum(0) if ctx.biased and wanted[2] else None


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b of (..., M, n) and (..., M, m), in float32."""
    count = a.shape[-2]
    parts = max(1, min(PARTS, count // LEAST))
    whole = count // parts * parts
    a_parts, b_parts = (x[..., :whole, :].unflatten(-2, (parts, -1)) for x in (a, b))
    total = torch.matmul(a_parts.mT, b_parts).sum(-3, dtype=torch.float32)
    return total if whole == count else total + (a[..., whole:, :].mT @ b[..., whole:, :]).float()
