"""Sum and norm on a GPU, in Triton; float64 runs portably."""

import torch

from mamba_vision.kernels.add_norm import portable
from mamba_vision.kernels.add_norm import triton_kernels as kernels
from mamba_vision.kernels.triton_common import cdiv, power_of_two
from mamba_vision.kernels.triton_launcher import launch
from mamba_vision.kernels.triton_notice import announce_compilation

PROGRAMS = 132 * 8  # of the backward, each with partial sums for weight and bias of its own
WIDEST = 16384


def forward(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype):
    """The normed sum and the sum (empty where it is the input itself)."""
    if _elsewhere(hidden, residual_dtype):
        return portable.forward(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype)
    announce_compilation()
    same = residual is None and residual_dtype == hidden.dtype
    normed = hidden.new_empty(hidden.shape, dtype=out_dtype)
    total = hidden.new_empty(0 if same else hidden.shape, dtype=residual_dtype)
    if not hidden.numel():
        return normed, total
    x, r = _rows(hidden), hidden if residual is None else _rows(residual)
    rows, channels = x.shape
    block, together, warps = _shape(channels)
    with torch.cuda.device_of(hidden):
        launch(
            kernels.forward_rows, cdiv(rows, together),
            x, r, x if weight is None else weight, x if bias is None else bias, normed, x if same else total,
            rows, channels, x.stride(0), 0 if residual is None else r.stride(0),
            EPS=eps, CENTRED=centred, HAS_RESIDUAL=residual is not None, HAS_WEIGHT=weight is not None,
            HAS_BIAS=bias is not None, SUM=not same, TOGETHER=together, BLOCK=block, num_warps=warps,
        )  # fmt: skip
    return normed, total


def backward(grad_normed, grad_total, total, weight, eps, centred, hidden_dtype, residual_dtype):
    """Gradients of hidden, residual, weight and bias."""
    if _elsewhere(total, hidden_dtype):
        return portable.backward(grad_normed, grad_total, total, weight, eps, centred, hidden_dtype, residual_dtype)
    channels = total.shape[-1]
    dhidden = total.new_empty(total.shape, dtype=hidden_dtype)
    dresidual = None if residual_dtype is None else total.new_empty(total.shape, dtype=residual_dtype)
    dweight, dbias = total.new_zeros(channels, dtype=torch.float32), total.new_zeros(channels, dtype=torch.float32)
    if not total.numel():
        return dhidden, dresidual, dweight, dbias
    g, x = _rows(grad_normed), _rows(total)
    gt = g if grad_total is None else _rows(grad_total)
    rows = x.shape[0]
    block, together, warps = _shape(channels)
    each = cdiv(cdiv(rows, together), PROGRAMS) * together
    programs = cdiv(rows, each)
    with torch.cuda.device_of(total):
        partial = total.new_empty(programs, 2, channels, dtype=torch.float32)
        launch(
            kernels.backward_rows, programs,
            g, gt, x, x if weight is None else weight, dhidden, dhidden if dresidual is None else dresidual, partial,
            rows, channels, each, g.stride(0), gt.stride(0), x.stride(0),
            EPS=eps, CENTRED=centred, HAS_TOTAL=grad_total is not None, HAS_WEIGHT=weight is not None,
            TWO=dresidual is not None, TOGETHER=together, BLOCK=block, num_warps=warps,
        )  # fmt: skip
        launch(
            kernels.sum_partials, 2 * cdiv(channels, 32), partial, dweight, dbias, programs, channels,
            ROWS=64, BLOCK=32, num_warps=4,
        )  # fmt: skip
    return dhidden, dresidual, dweight, dbias


def _elsewhere(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    return torch.float64 in (tensor.dtype, dtype) or tensor.shape[-1] > WIDEST


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(rows, channels) with adjacent channels."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(1) == 1 or flat.shape[1] == 1 else flat.contiguous()


def _shape(channels: int) -> tuple[int, int, int]:
    """(channels a row, rounded up; rows at once; warps)."""
    block = max(16, power_of_two(channels))
    return block, max(1, 2048 // block), 4 if block <= 4096 else 8
