"""volume_conv: argument checks, the torch.library operator and its gradient, choice of backend."""

import torch
from torch.autograd.function import once_differentiable

from mamba_vision.kernels.backends import choose, load
from mamba_vision.kernels.checks import check_device, check_float, check_shape
from mamba_vision.kernels.operators import or_empty, plainly, without_autocast
from mamba_vision.kernels.volume_conv import choice
from mamba_vision.kernels.volume_conv.portable import volume_conv_portable
from mamba_vision.kernels.volume_conv.reference import volume_conv_reference

_LAYOUT = torch.channels_last_3d
_WANTED = "bool of_x, bool of_weight, bool of_bias"


def volume_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolution of side 3, stride 1 and padding 1: `torch.nn.functional.conv3d(x, weight, bias, padding=1)`.

    The backend `triton` runs a kernel of its own where that was measured faster than cuDNN (`choice.py`): channels-last
    volumes in half precision with 48 or 96 channels. Elsewhere, and on other backends, it is PyTorch's. The gradient of
    the weight is cuDNN's always.

    Args:
        x: (batch, in, D, H, W).
        weight: (out, in, 3, 3, 3).
        bias: (out,), or None.

    Returns:
        (batch, out, D, H, W) of x's dtype, channels-last if x is.

    Raises:
        ValueError: for shapes, dtypes or devices that do not go together.
        BackendError: if a backend was asked for that cannot run.
    """
    _check(x, weight, bias)
    backend = choose("volume_conv", x)
    if backend == "reference":
        with without_autocast(x):
            return volume_conv_reference(x, weight, bias)
    if backend != "triton" or not choice.forward_pays(x, weight):
        return volume_conv_portable(x, weight, bias)
    if not plainly(x):
        return torch.ops.mamba_vision.volume_conv(x, weight, bias)
    if not choice.measured_on(x.device):
        return volume_conv_portable(x, weight, bias)
    y = _Saved.apply(x, weight, bias)
    with torch.no_grad():
        _write(x, weight, bias, y)
    return y


def _check(x, weight, bias) -> None:
    if x.dim() != 5:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, channels, D, H, W)")
    expected = (*weight.shape[:1], x.shape[1], 3, 3, 3)
    check_shape("weight", weight, expected, "(out, in, 3, 3, 3) with the channels of x")
    check_float(x=x, weight=weight, bias=bias)
    if bias is not None:
        check_shape("bias", bias, (weight.shape[0],), "one value for each channel out")
    check_device("x", x=x, weight=weight, bias=bias)


def _write(x, weight, bias, y) -> None:
    load("volume_conv", "triton").write(x, weight, bias, y)


def _empty(x, weight):
    """What a result of the kernel looks like."""
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAYOUT)


class _Saved(torch.autograd.Function):
    """A result yet to be written, and its gradient.

    Inputs are saved before anything is computed: activation checkpointing, which runs up to the last saved tensor a
    second time, then leaves the convolution out, as it does with PyTorch's.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _empty(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return _gradients(grad, *ctx.saved_tensors, ctx.needs_input_grad)


def _gradients(grad, x, weight, wanted):
    """Gradients of x, weight and bias, None for those not wanted."""
    grad = grad.contiguous(memory_format=_LAYOUT)
    dx = None
    own = wanted[0] and choice.gradient_pays(weight) and choice.measured_on(x.device)
    if own:
        dx = torch.empty_like(x)
        load("volume_conv", "triton").write_gradient(grad, weight, dx)
    dweight = None
    if wanted[1] or (wanted[0] and not own):
        mask = (wanted[0] and not own, wanted[1], False)
        rest = torch.ops.aten.convolution_backward(
            grad, x, weight, None, (1, 1, 1), (1, 1, 1), (1, 1, 1), False, (0, 0, 0), 1, mask
        )
        dx, dweight = dx if own else rest[0], rest[1]
    return dx, dweight, grad.sum((0, 2, 3, 4)) if wanted[2] else None


def _run(x, weight, bias):
    x = x.contiguous(memory_format=_LAYOUT)  # a compiler may have its own mind
    if not choice.measured_on(x.device):
        with without_autocast(x):
            return volume_conv_portable(x, weight, bias).contiguous(memory_format=_LAYOUT)
    y = _empty(x, weight)
    _write(x, weight, bias, y)
    return y


_forward = torch.library.custom_op(
    "mamba_vision::volume_conv", _run, mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor"
)


@_forward.register_fake
def _(x, weight, bias):
    return _empty(x, weight)


def _run_backward(grad, x, weight, of_x, of_weight, of_bias):
    x = x.contiguous(memory_format=_LAYOUT)
    with without_autocast(x):
        return or_empty(weight, *_gradients(grad, x, weight, (of_x, of_weight, of_bias)))


_backward = torch.library.custom_op(
    "mamba_vision::volume_conv_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, Tensor weight, {_WANTED}) -> (Tensor, Tensor, Tensor)",
)


@_backward.register_fake
def _(grad, x, weight, of_x, of_weight, of_bias):
    dbias = weight.new_empty(weight.shape[0]) if of_bias else None
    return or_empty(
        weight, torch.empty_like(x) if of_x else None, torch.empty_like(weight) if of_weight else None, dbias
    )


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])


def _differentiate(ctx, grad):
    wanted = ctx.needs_input_grad
    gradients = torch.ops.mamba_vision.volume_conv_backward(grad, *ctx.saved_tensors, *wanted)
    return tuple(g if asked else None for g, asked in zip(gradients, wanted))


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
