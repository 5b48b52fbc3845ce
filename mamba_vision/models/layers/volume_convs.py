"""Convolutions over channels-last volumes in half precision on a GPU, where cuDNN's own choice is slow.

Elsewhere, and for compilers, each is the nn.Conv3d as it is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PARTS = 256  # of a sum over all voxels
LEAST = 4096  # voxels a part
FEW = 4  # channels of scans, for which cuDNN has no kernels of its own
MULTIPLE = 8  # channels that it wants


def pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution of side 1, as a product of matrices.

    The gradient of its weight is a few numbers that are sums over all voxels, which cuDNN leaves to one multiprocessor;
    here parts of the voxels are added up side by side.
    """
    dtype = _fast_dtype(x)
    if dtype is None:
        return conv(x)
    x_BDHWC = x.movedim(1, -1).to(dtype)
    bias = None if conv.bias is None else conv.bias.to(dtype)
    rows = _Pointwise.apply(x_BDHWC.flatten(0, -2), conv.weight.flatten(1).to(dtype), bias)
    return rows.unflatten(0, x_BDHWC.shape[:-1]).movedim(-1, 1)


def few_channels(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution that reads a scan's one to four channels, with taps as channels; any other module as it is."""
    if type(conv) is not nn.Conv3d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return conv(x)
    dtype = _fast_dtype(x)
    plain = conv.groups > 1 or set(conv.dilation) != {1}
    if dtype is None or plain or conv.in_channels > FEW or conv.kernel_size[2] == 1:
        return conv(x)
    weight, bias = conv.weight.to(dtype), None if conv.bias is None else conv.bias.to(dtype)
    return taps_as_channels(x.to(dtype), weight, bias, conv.stride, conv.padding)


def taps_as_channels(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """The convolution of channels-last x (B, C, D, H, W) by weight (out, C, i, j, k), as one by (out, k C, i, j, 1).

    The taps of the last axis become channels: what a voxel needs along it lies in one piece. There may be more taps, of
    weight zero, so that cuDNN has as many channels as it wants.
    """
    side = weight.shape[4]
    taps = next(n for n in range(side, side + MULTIPLE) if n * x.shape[1] % MULTIPLE == 0)
    spare = taps - side
    x_BDHWC = F.pad(x.movedim(1, -1), (0, 0, padding[2], padding[2] + spare))
    x_BDHWk = x_BDHWC.unfold(3, taps, stride[2]).transpose(-1, -2).flatten(-2)
    weight_okij = F.pad(weight, (0, spare)).permute(0, 4, 1, 2, 3).flatten(1, 2)
    wide, strides = x_BDHWk.movedim(-1, 1), (*stride[:2], 1)
    return F.conv3d(wide, weight_okij.unsqueeze(-1), bias, strides, (*padding[:2], 0))


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
        ctx.save_for_backward(rows, weight)
        ctx.biased = bias is not None
        return F.linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        wanted = ctx.needs_input_grad
        dweight = sum_of_products(grad, rows).to(weight.dtype) if wanted[1] else None
        return grad @ weight if wanted[0] else None, dweight, grad.sum(0) if ctx.biased and wanted[2] else None


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b of (rows, n) and (rows, m), in float32."""
    parts = max(1, min(PARTS, len(a) // LEAST))
    whole = len(a) // parts * parts
    total = torch.bmm(a[:whole].unflatten(0, (parts, -1)).transpose(1, 2), b[:whole].unflatten(0, (parts, -1)))
    total = total.sum(0, dtype=torch.float32)
    return total if whole == len(a) else total + (a[whole:].t() @ b[whole:]).float()
