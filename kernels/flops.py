"""What the ops cost, for PyTorch's counter: `torch.utils.flop_counter.FlopCounterMode` finds these by itself.

The recurrence is counted as the vision papers count it: 9 operations a step, channel and state (VMamba's count of
exp(s A), s B u, the state's update and its product with C), and one a step and channel for the skip D u and for the
gate z. Projections and convolutions that run inside an op count like any other: 2 operations a multiply-add. A backward
pass counts twice its forward pass, as PyTorch counts matrix products.
"""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

import mamba_vision.kernels.causal_conv1d.op
import mamba_vision.kernels.ordered_scan.convolution
import mamba_vision.kernels.ordered_scan.op
import mamba_vision.kernels.selective_scan.op
import mamba_vision.kernels.ssd.scan_op  # noqa: F401 (they define the operators that are named below)

FORMULA = "scan = 9·L·D·N + L·D (skip) + L·D (gate), a direction; L steps, D channels, N states"
Shape = Sequence[int]


def scan_flops(steps: int, channels: int, states: int, skip: bool = True, gate: bool = False) -> int:
    """Operations of a recurrence of `steps` (over batch and directions), as published."""
    return steps * channels * (9 * states + skip + gate)


def selective_scan_flops(u: Shape, delta: Shape, A: Shape, B: Shape, C: Shape, D=None, z=None, *_, **__) -> int:
    """Operations of `selective_scan`, from the shapes of its inputs."""
    return scan_flops(u[0] * u[2], u[1], A[1], D is not None, z is not None)


def ordered_recurrence_flops(
    x: Shape, order: Shape, dt: Shape, dt_weight, A: Shape, B: Shape, C: Shape, D=None, dt_bias=None, z=None, *_, **__
) -> int:
    """Operations of the recurrences in `ordered_scan`; the gate runs once, on the merged output."""
    gate = 0 if z is None else x[0] * x[1] * x[2]
    return scan_flops(_steps(x, order), x[2], A[2], D is not None) + gate


def ordered_product_flops(
    x: Shape, order: Shape, dt: Shape, dt_weight, A, B, C, D=None, dt_bias=None, z=None, conv_weight=None, *_, **__
) -> int:
    """Operations of the projection of step sizes and of the convolution that run inside `ordered_scan`."""
    rows = dt[0] * dt[1] * dt[2]  # a step and order, or a token and order
    project = 0 if dt_weight is None else 2 * rows * x[2] * dt_weight[2]
    convolve = 0 if conv_weight is None else 2 * _steps(x, order) * x[2] * conv_weight[2]
    return project + convolve


def conv_flops(x: Shape, weight: Shape, *_, **__) -> int:
    """Operations of `causal_conv1d`."""
    return 2 * x[0] * x[1] * x[2] * weight[1]


def ordered_conv_flops(x: Shape, order: Shape, weight: Shape, *_, **__) -> int:
    """Operations of `ordered_conv1d`."""
    return 2 * _steps(x, order) * x[2] * weight[2]


def ssd_flops(x: Shape, step: Shape, A: Shape, B: Shape, *_, **__) -> int:
    """Operations of the recurrence that `ssd` computes in matrix form."""
    return scan_flops(x[0] * x[1], x[2] * x[3], B[3], skip=False)


def _steps(x: Shape, order: Shape) -> int:
    return x[0] * order[-2] * order[-1]


def _register() -> None:
    ops = torch.ops.mamba_vision

    def ordered(*shapes, **options) -> int:
        return ordered_recurrence_flops(*shapes, **options) + ordered_product_flops(*shapes, **options)

    for forward, backward, formula, gradients in (
        (ops.selective_scan, ops.selective_scan_backward, selective_scan_flops, 2),
        (ops.ordered_scan, ops.ordered_scan_backward, ordered, 1),
        (ops.causal_conv1d, ops.causal_conv1d_backward, conv_flops, 2),
        (ops.ordered_conv1d, ops.ordered_conv1d_backward, ordered_conv_flops, 1),
        (ops.ssd_scan, ops.ssd_scan_backward, ssd_flops, 2),
    ):
        register_flop_formula(forward)(formula)
        register_flop_formula(backward)(_twice(formula, gradients))


def _twice(formula, gradients: int):
    """The formula of a backward op, whose first arguments are that many output gradients."""
    return lambda *shapes, **options: 2 * formula(*shapes[gradients:], **options)


_register()
